"""Updates against a dict: whatever is done in whatever order, the index is what the dict says."""

from __future__ import annotations

import copy
import pickle
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from numpy.typing import NDArray

import swann
from swann import SearchResult, UnknownDocidError
from swann.index import health

D = 5
RNG = np.random.default_rng(3)
POOL = (RNG.standard_normal((40, D)) * RNG.lognormal(0, 1, (40, 1))).astype(np.float32)
POOL[7] = POOL[8]  # repeats
QUERIES = RNG.standard_normal((4, D)).astype(np.float32)
NAMES: dict[str, list[Any]] = {
    "str": ["", "0", "a", "ä", "\ud800", "a\0", "docid " * 20, *(f"n{i}" for i in range(13))],
    "int": [0, 1, 7, 2**31, 2**32 - 1, 2**32, 2**63 - 1, *range(100, 113)],
}


@dataclass(frozen=True)
class Kind:
    """What an index is made of."""

    measure: Any
    tree: bool
    soar: bool
    score: str  # brute force, or AH with or without rows to reorder by
    precision: str
    docids: str  # "none", "str" or "int"

    def builder(self, db: NDArray[np.float32]) -> swann.Builder:
        builder = swann.builder(db, 3, self.measure)
        if self.tree:
            soar = {"soar_lambda": 1.5, "overretrieve_factor": 50.0} if self.soar else {}
            builder.tree(4, 4, min_partition_size=1, **soar)  # type: ignore[arg-type]
        precision = swann.ReorderType[self.precision]
        if self.score == "brute force":
            return builder.score_brute_force(precision)
        builder.score_ah(2)
        return builder if self.score == "AH" else builder.reorder(10_000, precision)

    @property
    def exact(self) -> bool:
        return self.score != "AH"


kinds = st.builds(
    Kind,
    st.sampled_from(["dot_product", "squared_l2", "cosine"]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["brute force", "AH", "AH+reorder"]),
    st.sampled_from(["FLOAT32", "BFLOAT16", "INT8"]),
    st.sampled_from(["none", "str", "int"]),
)
vectors = st.integers(0, len(POOL) - 1)


class Machine(RuleBasedStateMachine):
    """The model is `self.model`, a dict of docids (or row ids) in order."""

    @initialize(kind=kinds, start=st.lists(vectors, max_size=12))
    def build(self, kind: Kind, start: list[int]) -> None:
        self.kind = kind
        self.names = NAMES.get(kind.docids, [])
        db = POOL[start].reshape(-1, D)
        keys = self.names[: len(start)] if self.names else list(range(len(start)))
        builder = kind.builder(db)
        self.searcher = builder.build(docids=keys) if self.names else builder.build()
        self.model: dict[Any, NDArray[np.float32]] = dict(zip(keys, db, strict=True))
        self.next_id = len(start)

    # ---- Changes

    @rule(data=st.data(), count=st.integers(0, 70))
    def upsert(self, data: st.DataObject, count: int) -> None:
        chosen = data.draw(st.lists(vectors, min_size=count, max_size=count))
        new = POOL[chosen].reshape(-1, D)
        keys: Any = None
        if self.names:
            keys = data.draw(st.lists(st.sampled_from(self.names), max_size=count, unique=True))
            new = new[: len(keys)]
        elif self.model and data.draw(st.booleans()):
            keys = data.draw(st.lists(st.sampled_from(list(self.model)), max_size=9, unique=True))
            new = POOL[data.draw(st.lists(vectors, min_size=len(keys), max_size=len(keys)))]
            new = new.reshape(-1, D)
        written = self.searcher.upsert(keys, new)
        if keys is None:
            keys = list(range(self.next_id, self.next_id + len(new)))
            self.next_id += len(new)
        assert written.tolist() == keys
        self.model |= zip(keys, new, strict=True)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        some = st.lists(st.sampled_from(list(self.model)), unique=True)
        keys = list(self.model) if data.draw(st.integers(0, 9)) == 0 else data.draw(some)
        self.searcher.delete(keys)
        for key in keys:
            del self.model[key]

    # ---- What must change nothing

    @precondition(lambda self: not self.names or len(self.model) < len(self.names))
    @rule(data=st.data())
    def delete_missing(self, data: st.DataObject) -> None:
        if self.names:
            missing = data.draw(st.sampled_from([k for k in self.names if k not in self.model]))
        else:
            gone = [row for row in range(self.next_id) if row not in self.model]
            beyond = st.integers(0, 2**40).map(lambda more: self.next_id + more)
            missing = data.draw(beyond | st.sampled_from(gone) if gone else beyond)
        keys = [*list(self.model)[:2], missing]
        with pytest.raises(UnknownDocidError):
            self.searcher.delete(keys[:: data.draw(st.sampled_from([1, -1]))])

    @rule(data=st.data(), bad=st.sampled_from(["NaN", "inf", "long", "zero", "wide", "twice"]))
    def bad_upsert(self, data: st.DataObject, bad: str) -> None:
        new = POOL[:5].copy()
        keys: Any = self.names[:5] if self.names else None
        place = data.draw(st.integers(0, 4))
        if bad == "wide":
            new = np.hstack([new, new])
        elif bad == "twice":
            keys = [self.names[0]] * 5 if self.names else [0] * 5
        elif bad == "zero":
            new[place] = 0
            if self.kind.measure != "cosine":
                return
        else:
            new[place, 1] = {"NaN": np.nan, "inf": np.inf, "long": 1e19}[bad]
        with pytest.raises(swann.InvalidInputError):
            self.searcher.upsert(keys, new)

    # ---- What must show in nothing

    @rule(how=st.sampled_from(["pickle", "copy", "deepcopy", "save"]))
    def keep(self, how: str) -> None:
        before = self.searcher.search_batched(QUERIES, 100, leaves_to_search=99)
        if how == "save":
            with tempfile.TemporaryDirectory() as folder:
                self.searcher.serialize(folder)
                kept = swann.load_searcher(folder, verify="full")
        elif how == "pickle":
            kept = pickle.loads(pickle.dumps(self.searcher))
        else:
            kept = getattr(copy, how)(self.searcher)
        old, self.searcher = self.searcher, kept
        assert_same_but_ties(
            kept.search_batched(QUERIES, 100, leaves_to_search=99), before, exact=self.kind.exact
        )
        # The one it came from goes its own way.
        old.upsert(None if not self.names else "own" if self.kind.docids == "str" else 55, POOL[0])

    @rule()
    def rebalance(self) -> None:
        self.searcher.rebalance()

    @rule(room=st.integers(0, 5000))
    def reserve(self, room: int) -> None:
        self.searcher.reserve(room)

    @rule(share=st.sampled_from([0.0, 1]))
    def reshape(self, share: float) -> None:
        self.searcher._live.keep_shape(share)

    @rule()
    def measure(self) -> None:
        self.searcher.initialize_health_stats()

    # ---- What must hold

    @invariant()
    def sizes(self) -> None:
        searcher = self.searcher
        assert searcher.size() == len(searcher) == searcher.num_datapoints == len(self.model)
        assert searcher.docids == (list(self.model) if self.names else None)
        if not self.names:
            assert searcher._live.numbers().tolist() == sorted(self.model)

    @invariant()
    def vectors_are_kept(self) -> None:
        if not self.kind.exact or not self.model:
            return
        rows = self.searcher._live.vectors(self.searcher._live.numbers())
        kept = np.array(list(self.model.values()) if self.names else self.by_number())
        if self.kind.measure == "cosine":
            kept /= np.linalg.norm(kept, axis=1, keepdims=True)
        # After a rebalance they were rounded twice.
        step = {"FLOAT32": 1e-6, "BFLOAT16": 2**-7, "INT8": 1 / 64}[self.kind.precision]
        assert (np.abs(rows - kept) <= step * np.abs(kept).max(axis=1, keepdims=True)).all()

    def by_number(self) -> list[NDArray[np.float32]]:
        return [self.model[number] for number in sorted(self.model)]

    @invariant()
    def finds_what_it_should(self) -> None:
        k = 7
        found = self.searcher.search_batched(QUERIES, k, leaves_to_search=99)
        parallel = self.searcher.search_batched_parallel(QUERIES, k, leaves_to_search=99)
        np.testing.assert_array_equal(found.indices, parallel.indices)
        np.testing.assert_array_equal(found.distances, parallel.distances)
        for row, query in enumerate(QUERIES):
            one = self.searcher.search(query, k, leaves_to_search=99)
            np.testing.assert_array_equal(one.indices, found.indices[row])
            np.testing.assert_array_equal(one.distances, found.distances[row])
        count = min(k, len(self.model))
        nothing = None if found.indices.dtype == object else -1
        if self.kind.docids == "int" and self.model:
            assert found.indices.dtype == np.int64
        listed = found.indices.tolist()
        assert all(ids[count:] == [nothing] * (k - count) for ids in listed)
        assert all(len(set(ids[:count])) == count for ids in listed)
        assert all(set(ids[:count]) <= self.model.keys() for ids in listed)
        assert np.isnan(found.distances[:, count:]).all()
        assert np.isfinite(found.distances[:, :count]).all()
        if self.kind.exact and count:
            self.check_distances(found, count)

    def check_distances(self, found: SearchResult, count: int) -> None:
        rows = self.searcher._live.vectors(self.searcher._live.numbers()).astype(np.float64)
        keys = list(self.model) if self.names else sorted(self.model)
        places = {key: place for place, key in enumerate(keys)}
        queries = QUERIES.astype(np.float64)
        if self.kind.measure == "cosine":
            queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        if self.kind.measure == "squared_l2":
            scores = -((queries[:, None] - rows[None]) ** 2).sum(-1)
            given = -found.distances[:, :count].astype(np.float64)
        else:
            scores = queries @ rows.T
            given = found.distances[:, :count].astype(np.float64)
        close = 1e-5 * max(1.0, float((rows**2).sum(-1).max()))
        best = -np.sort(-scores, axis=1)[:, :count]
        np.testing.assert_allclose(given, best, rtol=0, atol=close)
        for row, ids in enumerate(found.indices[:, :count].tolist()):
            own = scores[row, [places[key] for key in ids]]
            np.testing.assert_allclose(given[row], own, rtol=0, atol=close)

    @invariant()
    def health_is_as_if_measured_anew(self) -> None:
        live = self.searcher._live
        if live.view.books.health is None:
            return
        stats = self.searcher.get_health_stats()
        fresh = health.Health.of(live.view.packed).stats(live.view.packed)
        assert stats == pytest.approx(fresh, rel=1e-9, abs=0)


def assert_same_but_ties(a: SearchResult, b: SearchResult, exact: bool) -> None:
    if exact:
        np.testing.assert_array_equal(a.distances, b.distances)
    assert [{*ids} for ids in a.indices.tolist()] == [{*ids} for ids in b.indices.tolist()]


@pytest.fixture(autouse=True)
def _tidy_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swann.index.changing.live._TIDY", 8)


class TestModel(Machine.TestCase):  # type: ignore[misc,name-defined]
    settings = settings(max_examples=60, stateful_step_count=25)
