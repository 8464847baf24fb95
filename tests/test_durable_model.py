"""Durable changes against a list of dicts: crashes wherever, and every state is one there was."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from durable_cases import DB, START, contents, log_of, name, save
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import swann
from swann.index.log.format import FILE_HEADER

keys = st.integers(0, START + 8)


class Machine(RuleBasedStateMachine):
    """`self.states` holds what there was after each change that was acknowledged."""

    @initialize(
        kind=st.sampled_from(["none", "int", "str"]),
        tree=st.booleans(),
        durability=st.sampled_from(["always", "batch", "none"]),
    )
    def begin(self, kind: str, tree: bool, durability: Any) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.kind, self.durability, self.crashes = kind, durability, 0
        self.root = save(self.folder / "0", kind, tree)
        self.index = self.open(self.root)
        self.states = [contents(self.index)]
        self.next_id, self.folded = START, 0

    def open(self, root: Path) -> swann.DurableSearcher:
        return swann.open(root, durability=self.durability, flush_interval=0.001)

    def teardown(self) -> None:
        if hasattr(self, "index"):
            self.index.close()
            shutil.rmtree(self.folder)

    @rule(chosen=st.lists(keys, min_size=1, max_size=6, unique=True), row=st.integers(0, 300))
    def upsert(self, chosen: list[int], row: int) -> None:
        model, rows = dict(self.states[-1]), DB[row : row + len(chosen)]
        if self.kind == "none" and row % 2:
            written = self.index.upsert(None, rows).tolist()
            assert written == list(range(self.next_id, self.next_id + len(chosen)))
            self.next_id += len(chosen)
        else:
            written = [name(self.kind, key) for key in chosen]
            if self.kind == "none":
                written = [key for key in written if key in model]
                rows = rows[: len(written)]
            one = len(written) == 1 and row % 3 == 0
            self.index.upsert(written[0] if one else written, rows[0] if one else rows)
        if written:
            self.states.append(model | {k: v.tobytes() for k, v in zip(written, rows, strict=True)})

    @precondition(lambda self: self.states[-1])
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        there = st.sampled_from(sorted(self.states[-1]))
        gone = data.draw(st.lists(there, min_size=1, max_size=4, unique=True))
        self.index.delete(gone if len(gone) > 1 else gone[0])
        self.states.append({k: v for k, v in self.states[-1].items() if k not in gone})

    @rule(bad=st.sampled_from(["NaN", "missing"]))
    def refused(self, bad: str) -> None:
        if bad == "NaN":
            row = np.full(4, np.nan, np.float32)
            with pytest.raises(swann.NonFiniteError):
                self.index.upsert(None if self.kind == "none" else name(self.kind, 1), row)
        else:
            with pytest.raises(swann.UnknownDocidError):
                self.index.delete(name(self.kind, 10**6))

    @rule(rebalance=st.booleans())
    def checkpoint(self, rebalance: bool) -> None:
        self.index.rebalance() if rebalance else self.index.checkpoint()
        self.folded = len(self.states) - 1

    @rule()
    def reopen(self) -> None:
        self.index.close()
        self.index = self.open(self.root)

    @rule(where=st.floats(0, 1))
    def crash(self, where: float) -> None:
        """Go on with a copy whose log is cut somewhere: with what had reached the disk."""
        self.crashes += 1
        old, self.root = self.root, self.folder / f"{self.crashes}"
        shutil.copytree(old, self.root, ignore=shutil.ignore_patterns(".lock"))
        self.index.close()
        log = log_of(self.root)
        size = log.stat().st_size
        kept = FILE_HEADER + round(where * (size - FILE_HEADER))
        os.truncate(log, kept)
        self.index = self.open(self.root)
        found = contents(self.index)
        possible = range(len(self.states) - 1, self.folded - 1, -1)
        if kept == size:
            assert found == self.states[-1]
        last = next(i for i in possible if self.states[i] == found)
        del self.states[last + 1 :]
        self.next_id = self.index._live.view.books.following

    @invariant()
    def is_the_model(self) -> None:
        if hasattr(self, "index"):
            assert contents(self.index) == self.states[-1]
            assert contents(swann.load(self.root)) == self.states[-1]


@pytest.mark.usefixtures("no_fsync")
class TestModel(Machine.TestCase):  # type: ignore[misc,name-defined]
    settings = settings(max_examples=20, stateful_step_count=15)
