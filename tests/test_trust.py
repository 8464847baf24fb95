"""The short forms of the experiments of `make trust` (docs/trust.md)."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from random import Random

import pytest

from benchmarks.trust import watch
from benchmarks.trust.experiment import Options
from benchmarks.trust.mutate import Saved
from benchmarks.trust.registry import EXPERIMENTS
from benchmarks.trust.storage.disk_model import Disk, Event
from benchmarks.trust.worker import is_sanitized

# Others install libraries.
HERE = [
    "damage",
    "fork",
    "interrupt",
    "kill9",
    "memory",
    "oracle",
    "power",
    "sizes",
    "syscalls",
    "together",
]
COMPILED = ("memory", "power", "syscalls")  # what is preloaded

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals, /proc and preloading")


# Ctrl-C between opening a file and entering its block leaves it to be closed by itself.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("name", HERE)
def test_short_form(name: str, tmp_path: Path) -> None:
    if name in (*COMPILED, "interrupt") and is_sanitized():
        pytest.skip("sanitizers are slow, and have allocations of their own")
    if name in COMPILED and shutil.which("c++") is None:
        pytest.skip("needs a C++ compiler")
    experiment = EXPERIMENTS[name]
    n = experiment.short
    if name == "damage" and is_sanitized():
        n //= 5  # they are slow: `make sanitize-damage` tries as many as asked for
    memory = Path("/dev/shm")
    folder = memory / f"swann-{tmp_path.parent.name}-{tmp_path.name}"
    folder = folder if memory.is_dir() else tmp_path / "folder"
    folder.mkdir()
    try:
        report = experiment.run(Options(n, 0, 0, 2, folder))
    finally:
        shutil.rmtree(folder)
    assert report.failures == []


# ---- The experiments themselves notice what they are there for

SUBJECT = """
import ctypes, time
from benchmarks.trust.worker import Subject

class Bad(Subject):
    allowed = {"one": frozenset(("same",)), "two": frozenset(("refused",))}

    def run(self, number):
        if number == 3:
            ctypes.string_at(0)
        if number == 5:
            while True:
                pass
        if number == 7:
            return "two", "different", "seven"
        if number == 8:
            raise MemoryError
        return "one", "same", ""

def subject(argument, folder, seed):
    return Bad()
"""


def test_crashes_hangs_and_differences_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad_subject.py").write_text(SUBJECT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(watch, "HANG", 0.2)
    tally = watch.try_all("bad_subject:", ["one", "two"], 10, seed=0, workers=1, folder=tmp_path)
    assert sorted(int(told.split(":")[0]) for told in tally.failures) == [3, 5, 7, 8]
    assert [tally.total(name) for name in ("same", "different", "crash", "hang")] == [6, 1, 2, 1]


def test_what_is_damaged_is_made_whole_again(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    for name in "abc":
        (folder / name).write_bytes(name.encode() * 100 + b"12")
    saved = Saved(folder)
    changed = 0
    for i in range(300):
        saved.damage(Random(i))
        now = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        changed += now != saved.files
        saved.restore()
        assert {path: path.read_bytes() for path in sorted(folder.iterdir())} == saved.files
    assert changed > 250


# ---- The model of a disk that loses power


def power_fails(events: list[Event], before: dict[str, bytes]) -> list[dict[str, bytes]]:
    disk = Disk(before)
    for event in events:
        disk.apply(event)
    left = [disk.left(choice) for choice in disk.choices(Random(0), few=8, samples=0)]
    return [files for i, files in enumerate(left) if files not in left[:i]]


def test_what_is_flushed_stays_and_the_rest_may() -> None:
    opened, written = Event("o", (3, 1, 1), "a/new"), Event("w", (3, 0), data=b"xy")
    folder, both = Event("o", (4, 0, 0), "a"), Event("r", (), "a/new", "a/old")
    old = {"a/old": b"1"}
    left = power_fails([opened, written, both], old)
    assert {"a/old": b""} in left  # the name, and not the bytes
    assert {"a/old": b"xy"} in left
    assert {"a/old": b"1"} in left
    assert {"a/old": b"\0\0"} in left  # its length only
    left = power_fails([opened, written, Event("s", (3,)), both], old)
    assert all(files["a/old"] in (b"1", b"xy") for files in left)
    assert {"a/old": b"1", "a/new": b"xy"} in left
    left = power_fails([opened, written, Event("s", (3,)), both, folder, Event("s", (4,))], old)
    assert left == [{"a/old": b"xy"}]


def test_writes_that_were_not_flushed_come_in_any_order() -> None:
    events = [Event("o", (3, 0, 0), "log"), Event("w", (3, 2), data=b"c"), Event("t", (3, 1))]
    left = power_fails([*events, Event("w", (3, 1), data=b"d")], {"log": b"ab"})
    contents = {files["log"] for files in left}
    assert contents == {b"ab", b"abc", b"a", b"ad", b"adc", b"ab\0", b"ab\xa5", b"ad\0", b"ad\xa5"}
    assert power_fails([*events, Event("s", (3,))], {"log": b"ab"}) == [{"log": b"a"}]
