"""What the workers of `syscalls` do: spoil a call of the system, and look at what is left."""

from __future__ import annotations

import os
import signal
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.trust.storage import library
from benchmarks.trust.storage.cases import Case, calls_of, cases_of, operations
from benchmarks.trust.storage.child import Child
from benchmarks.trust.storage.library import Watched
from benchmarks.trust.storage.operations import KINDS, OPERATIONS, Session, view_of
from benchmarks.trust.worker import Subject
from swann import SwannError
from swann.index.disk import store  # noqa: F401  (all is imported before calls are counted)

KILLED, ERRORS = "killed", "errors"
LANES = {
    f"{title}, {what}": frozenset(("same", "earlier" if what == KILLED else "refused"))
    for title in OPERATIONS
    for what in (KILLED, ERRORS)
}


class Syscalls(Subject):
    """Case i is the i-th of all, in the seed's order."""

    allowed = LANES
    margin = 4 << 30

    def __init__(self, folder: Path, seed: int) -> None:
        warnings.simplefilter("ignore")  # forks beside threads, checkpoints that fail
        folder.mkdir()
        self.folder = folder / "index"
        self.watched = Watched(folder)
        self.operations = operations(folder)
        calls = [calls_of(o, self.folder, self.watched) for o in self.operations]
        self.cases = cases_of(calls, seed)

    def run(self, number: int) -> tuple[str, str, str]:
        """Let it happen in a child, look at the directory, let the child go on, look again."""
        case = self.cases[number % len(self.cases)]
        operation = self.operations[case.operation]
        title = OPERATIONS[case.operation // len(KINDS)]
        what = f"{operation.kind}, call {case.n} ({case.call}): {case.what}"
        kills = case.action in (library.KILL, library.TORN)
        lane = f"{title}, {KILLED if kills else ERRORS}"
        outcome, told = _Trial(self, case).run(kills)
        return lane, outcome, f"{what}: {told}"


class _Trial:
    def __init__(self, subject: Syscalls, case: Case) -> None:
        self.folder, self.watched, self.case = subject.folder, subject.watched, case
        self.operation = subject.operations[case.operation]
        self.path = self.operation.path(self.folder)
        self.done = 0  # steps acknowledged

    def run(self, kills: bool) -> tuple[str, str]:
        """Return the outcome, and what is wrong."""
        self.operation.start(self.folder)
        child = Child(self.work)
        outcome, wrong = "same", []
        while (line := child.hear()) is not None:
            word, _, rest = line.partition(" ")
            if word == "done":
                self.done = int(rest)
            elif word == "error":  # the child waits: is all as before or after?
                outcome = "refused"
                wrong += self.look(self.done, self.done + 1, rest)
                child.go_on()
            elif word == "hits" and not int(rest) and not kills:
                wrong.append("the call did not come")
            elif word == "failed":
                wrong.append(rest)
        status = child.end()
        if kills and status == -signal.SIGKILL:
            found = self.look(self.done, self.done + 1, "killed")
            wrong += found
            if not found and self.state_now() == self.operation.states[self.done]:
                last = min(self.done + 1, len(self.operation.states) - 1)
                same = self.operation.states[self.done] == self.operation.states[last]
                outcome = "same" if same else "earlier"
        elif status != 0 or kills:
            wrong.append(f"status {status}")
        else:
            wrong += self.look(len(self.operation.states) - 1, None, "in the end")
        if not wrong and (kills or self.case.n % 4 == 0):
            try:
                wrong += filter(None, [self.operation.go_on(self.folder)])
            except Exception as error:
                wrong.append(f"afterwards: {error!r}")
        if not wrong:
            return outcome, ""
        return "different", "; ".join(wrong)

    def state_now(self) -> Any:
        return view_of(self.path)

    def look(self, first: int, last: int | None, when: str) -> list[str]:
        """Say what is wrong with the directory, which may be as after these steps."""
        states = self.operation.states
        allowed = states[first : (first if last is None else last) + 1]
        try:
            found = self.state_now()
        except Exception as error:
            return [f"{when}: {error!r}"]
        return [] if found in allowed else [f"{when}: another index"]

    # ---- In the child

    def work(self, child: Child) -> None:
        session = self.operation.begin(self.folder)
        case = self.case
        spoiled = True
        self.watched.arm(case.n, case.action, case.error)
        for number, step in enumerate(session.steps):
            try:
                step()
            except (OSError, SwannError) as error:
                if not spoiled:
                    raise
                spoiled = False
                self.mend(child, session, number, repr(error))
            child.tell(f"done {number + 1}")
        if spoiled:
            child.tell(f"hits {self.watched.disarm()}")
        self.check_own(session, len(session.steps), None)
        session.close()

    def mend(self, child: Child, session: Session, number: int, error: str) -> None:
        """After an error: everything is as before or after; then the step works."""
        if self.case.action == library.FAIL_ON:  # nor does it a second time
            with suppress(OSError, SwannError):
                session.steps[number]()
        child.tell(f"hits {self.watched.disarm()}")
        self.check_own(session, number, number + 1)
        child.tell(f"error {error}")
        child.wait()
        if self.is_done(session, number):
            return
        try:
            session.steps[number]()
        except SwannError:
            if session.reopen is None:
                raise
            session.reopen()  # as the error says
            self.check_own(session, number, number + 1)
            if not self.is_done(session, number):
                session.steps[number]()

    def is_done(self, session: Session, number: int) -> bool:
        before, after = self.operation.own[number : number + 2]
        return bool(before != after and session.own() == after)

    def check_own(self, session: Session, first: int, last: int | None) -> None:
        allowed = self.operation.own[first : (first if last is None else last) + 1]
        if session.own() not in allowed:
            raise RuntimeError("the index in memory is another")


def subject(argument: str, folder: Path, seed: int) -> Subject:
    """Return the subject."""
    os.environ.pop("LD_PRELOAD", None)  # it is loaded; compilers and others need it not
    return Syscalls(folder, seed)
