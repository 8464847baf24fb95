"""A directory that is open for changes: its log, its checkpoints, its lock.

::

    manifest.json, arrays      the checkpoint: all changes up to number s
    log-(s+1).swannlog         changes after it
    .lock                      while a writer has it

A checkpoint cuts the log: changes go on in a new file, while what was there at that moment is saved
beside the old checkpoint. The new manifest, in one step, makes the older log superfluous; until
then both stay. `swann.index.log.format` draws the log, `docs/storage.md` says why.
"""

from __future__ import annotations

import os
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from swann.errors import CorruptIndexError, InvalidInputError, UnknownDocidError
from swann.index.changing.live import LiveIndex
from swann.index.changing.turns import Turns, in_turn
from swann.index.disk import file_system
from swann.index.disk.lock import DirectoryLock
from swann.index.disk.log_files import log_files
from swann.index.disk.store import mark_log, save_state
from swann.index.log.format import Change
from swann.index.log.journal import Durability, FileJournal, NoJournal, start_log
from swann.index.log.reader import Logged, LogReader
from swann.index.state import LogPoint

__all__ = ["DurableFiles", "begin_log", "continue_log", "new_log", "replay"]

LEAST_BACKLOG = 1 << 24
"""Bytes of log below which no checkpoint is made unasked."""


def begin_log(root: Path) -> LogPoint:
    """Begin the log of an index that has none. The caller has the directory's lock."""
    point = new_log(root)
    mark_log(root, point)
    return point


def new_log(root: Path) -> LogPoint:
    """Begin a log in place of those that are there, which no manifest tells of yet."""
    for _, path in log_files(root):  # of an index that was here before
        file_system.remove(path)
    point = LogPoint(os.urandom(16).hex(), 0)
    start_log(root, point.id, 1)
    return point


def replay(make: Callable[[Change], None], root: Path, point: LogPoint) -> LogReader:
    """Make the changes after a checkpoint once more.

    Parameters
    ----------
    make : callable
        Makes a change.
    root : path
        The directory.
    point : LogPoint
        The checkpoint.

    Returns
    -------
    LogReader
        At the end of the log.

    Raises
    ------
    CorruptIndexError
        If the log is damaged, or is not one of changes to this index.
    """
    reader = LogReader(root, point)
    changes = reader.changes()
    while (logged := next(changes, None)) is not None:
        try:
            make(logged.change)
        except (InvalidInputError, UnknownDocidError) as error:
            # It may have been noted and refused, if its writer died in between.
            last = _is_over(changes)
            # Or its writer has taken it back by now, and noted others in its place.
            if not last and reader.has_still(logged):
                raise CorruptIndexError(
                    f"{logged.path} is not of its index: change {logged.sequence} at byte "
                    f"{logged.begin} cannot be made: {error}"
                ) from error
            reader.give_back(logged)
            if last:
                break
            changes = reader.changes()
    return reader


def _is_over(changes: Iterator[Logged]) -> bool:
    try:
        return next(changes, None) is None
    except CorruptIndexError:
        return False


def continue_log(
    reader: LogReader, root: Path, point: LogPoint, durability: Durability, interval: float
) -> FileJournal:
    """Return the journal that goes on with the log where `replay` ended.

    Parameters
    ----------
    reader : LogReader
        What `replay` returned.
    root, point : path, LogPoint
        As `replay` took them.
    durability, interval : str, float
        See `FileJournal`.
    """
    older = sum(path.stat().st_size for _, path in log_files(root) if path != reader.path)
    return FileJournal(
        reader.path,
        reader.first,
        point.id,
        reader.end,
        reader.following,
        durability,
        interval,
        older,
    )


class DurableFiles:
    """Keeps the changes of an index in a directory.

    Parameters
    ----------
    live : LiveIndex
        What `replay` made; its changes are logged from now on.
    reader : LogReader
        What `replay` returned.
    point : LogPoint
        The checkpoint that the log belongs to.
    root, lock : path, DirectoryLock
        The directory, released when this is closed.
    durability, interval : str, float
        See `FileJournal`.
    share : float or None
        See `swann.open`.
    """

    def __init__(
        self,
        live: LiveIndex,
        reader: LogReader,
        point: LogPoint,
        root: Path,
        lock: DirectoryLock,
        durability: Durability,
        interval: float,
        share: float | None,
    ) -> None:
        self._live, self._root, self._lock, self._share = live, root, lock, share
        self._saved = point.sequence, live.plan
        self._background: threading.Thread | None = None
        self._limit = self._new_limit()
        file_system.remove_temporary(root)
        self._journal = continue_log(reader, root, point, durability, interval)
        live.journal = self._journal
        self._ending = _Ending(self._journal, lock)
        self._closing = weakref.finalize(self, _close, os.getpid(), self._ending)

    def flush(self) -> None:
        """Bring all changes to disk; a LogError if that fails."""
        self._journal.flush()

    def close(self) -> None:
        """Bring all changes to disk and let others write; does nothing the second time."""
        if not self._lock.held:
            return
        self._live.check_outside()  # a checkpoint may wait for this very thread
        try:
            self._ending.close(partial(self._live.close, NoJournal("it was closed")))
        finally:
            if not self._lock.held:  # an interrupt may come before that
                self._closing.detach()

    # ---- Checkpoints

    def checkpoint(self, *, rebuilt: bool = False) -> None:
        """Save the index as it is now, and drop the log up to here.

        Parameters
        ----------
        rebuilt : bool
            Whether there is something to save even if nothing was logged.

        Raises
        ------
        OSError
            If it cannot be written; nothing is lost. A LockedError where another directory was
            put in its place.
        SwannError
            If this thread is within a change or a checkpoint.
        """
        self._live.check_outside()  # another checkpoint may wait for this very thread
        self._ending.after(partial(self._checkpoint, rebuilt))

    def _checkpoint(self, rebuilt: bool) -> None:
        self._journal.begin()  # can changes be made at all?
        self._lock.check()
        plan = self._live.plan
        state = self._live.cut()
        if state.log is None or (self._saved == (state.log.sequence, plan) and not rebuilt):
            return
        save_state(state, self._root, self._lock)
        self._journal.forget_older_files()
        self._saved = state.log.sequence, plan
        self._limit = self._new_limit()

    def keep_up(self) -> None:
        """Begin a checkpoint in the background, if it is time."""
        if self._share is None:
            return
        due = self._journal.backlog > self._limit or self._live.plan is not self._saved[1]
        if due and (self._background is None or not self._background.is_alive()):
            self._background = threading.Thread(target=self._checkpoint_quietly, daemon=True)
            self._background.start()

    def _checkpoint_quietly(self) -> None:
        try:
            self.checkpoint()
        except Exception as error:
            # Nothing is lost, the log is whole. The next try comes when it has grown as much again.
            self._limit = 2 * max(self._limit, self._journal.backlog)
            self._saved = self._saved[0], self._live.plan
            warnings.warn(
                f"no checkpoint of {self._root} could be made: {error}",
                RuntimeWarning,
                stacklevel=1,
            )

    def _new_limit(self) -> int:
        return max(LEAST_BACKLOG, int((self._share or 0) * self._live.nbytes))


class _Ending(Turns):
    """Closes a log and lets others in, once the checkpoint that is being made is done.

    Parameters
    ----------
    journal, lock : FileJournal, DirectoryLock
        What is closed and released.
    """

    def __init__(self, journal: FileJournal, lock: DirectoryLock) -> None:
        super().__init__()
        self._journal, self._held = journal, lock

    @in_turn
    def after(self, checkpoint: Callable[[], None]) -> None:
        """Make a checkpoint, which is over before anything is closed."""
        checkpoint()

    @in_turn
    def close(self, first: Callable[[], None] | None = None) -> None:
        """Do what an interrupt kept from being done, too, the second time."""
        if first is not None:
            first()
        try:
            self._journal.close()
        finally:
            if self._journal.closed:
                self._held.release()


def _close(process: int, ending: _Ending) -> None:
    if process == os.getpid():
        ending.close()
