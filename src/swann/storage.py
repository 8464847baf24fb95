"""Opening saved indexes: to search them, or to change them so that no change is lost."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, TypeVar

from numpy.typing import NDArray

from swann.config import IndexConfig, check_flag, check_number, check_path
from swann.errors import ConfigError, IndexFormatError, InvalidInputError
from swann.index.building.build import Progress
from swann.index.changing.durable import DurableFiles, begin_log, replay
from swann.index.disk.index_files import Verify
from swann.index.disk.lock import DirectoryLock
from swann.index.disk.log_files import log_signature
from swann.index.disk.manifest import open_unchanged
from swann.index.disk.sharded import is_sharded, load_state
from swann.index.log.format import Change
from swann.index.log.journal import Durability, NoJournal
from swann.index.state import State
from swann.searcher import Searcher

__all__ = ["DurableSearcher", "load", "load_searcher", "open"]

S = TypeVar("S", bound=Searcher)


class DurableSearcher(Searcher):
    """A `Searcher` whose changes are in a directory before they are acknowledged.

    Made by `swann.open`. A copy or a pickle of it is a plain `Searcher` of what it held.

    Parameters
    ----------
    state : State
        What to search.
    """

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self._files: DurableFiles | None = None

    def upsert(self, docids: object, vectors: object, batch_size: int = 1) -> NDArray[Any]:
        """Do what `Searcher.upsert` does, once it is in the log.

        Parameters
        ----------
        docids, vectors, batch_size
            As for `Searcher.upsert`.

        Returns
        -------
        array of shape (m,)
            The docids or row ids of the datapoints.

        Raises
        ------
        LogError
            If the log could not be brought to disk, now or earlier; nothing is done.
        ReadOnlyError
            If the index is closed, was opened with ``mode="r"``, or by another process.
        OSError
            If the log cannot be written, for a full disk; nothing is done.
        """
        written = super().upsert(docids, vectors, batch_size)
        if self._files is not None:
            self._files.keep_up()
        return written

    def delete(self, docids: object) -> None:
        """Do what `Searcher.delete` does, once it is in the log.

        Parameters
        ----------
        docids : str, int, or sequence of either
            As for `Searcher.delete`.

        Raises
        ------
        LogError, ReadOnlyError, OSError
            As `upsert` does.
        """
        super().delete(docids)
        if self._files is not None:
            self._files.keep_up()

    def rebalance(
        self, config: IndexConfig | None = None, progress: Progress | None = None
    ) -> None:
        """Do what `Searcher.rebalance` does, then a checkpoint.

        Parameters
        ----------
        config, progress
            As for `Searcher.rebalance`.

        Raises
        ------
        LogError, ReadOnlyError
            As `upsert` does, before anything is done.
        OSError
            If the checkpoint cannot be written. The index was built anew all the same, in memory;
            on disk are the old one and the log. The next checkpoint saves it.
        SwannError
            If it is called from within another change, or a checkpoint, as `checkpoint` says.
        """
        if self._live.journal is not None:
            self._live.journal.begin()  # can changes be made at all?
        super().rebalance(config, progress)
        if self._files is not None:
            self._files.checkpoint(rebuilt=True)

    def flush(self) -> None:
        """Bring all changes that were acknowledged to disk.

        Raises
        ------
        LogError
            If that fails; the index accepts no more changes then.
        """
        if self._files is not None:
            self._files.flush()

    def checkpoint(self) -> None:
        """Save the index as it is now, so that opening it needs no log up to here.

        Searches go on; changes wait while the index is folded, not while it is written.

        Raises
        ------
        OSError
            If it cannot be written; nothing is lost.
        ReadOnlyError
            If the index is closed or was opened with ``mode="r"``.
        SwannError
            If it is called from within a change or another checkpoint: by a progress callback, or
            a signal handler, for which these would wait for ever.
        """
        if self._files is not None:
            self._files.checkpoint()
        elif self._live.journal is not None:
            self._live.journal.begin()

    def close(self) -> None:
        """Bring all changes to disk and let other writers in. Searching goes on working.

        What an interrupt (Ctrl-C) keeps it from doing is done by the next call, or at exit.

        Raises
        ------
        LogError
            If not all changes may be on disk. It is closed all the same.
        SwannError
            If it is called from within a change or a checkpoint, as `checkpoint` says.
        """
        if self._files is not None:
            self._files.close()

    def __enter__(self) -> DurableSearcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy it as a plain `Searcher`."""
        return _plain, (self.__getstate__(),)


def _plain(kept: dict[str, Any]) -> Searcher:
    searcher = Searcher.__new__(Searcher)
    searcher.__setstate__(kept)
    return searcher


def load(
    path: str | os.PathLike[str], *, verify: Verify = "manifest", memory_map: bool = True
) -> Searcher:
    """Open an index that `Searcher.save` saved.

    Changes of what is returned stay in memory; those of what `open` returns do not.

    Parameters
    ----------
    path : path
        The directory, or the ``.swann`` file. Somebody may have the directory open for changes:
        then this is what was acknowledged when it was loaded.
    verify : {"manifest", "full"}
        ``"manifest"`` checks the manifest and the size, dtype and shape of every array;
        ``"full"`` reads everything and checks the digests too.
    memory_map : bool
        Whether arrays are mapped: pages are read when they are touched, and processes share them.
        ``False`` reads the arrays into memory of this process, in large pages where the system has
        them: a few percent faster to search.

    Returns
    -------
    Searcher

    Raises
    ------
    IndexFormatError
        If there is no index, it is of another version, or it is damaged.
    """
    return _load(path, verify, Searcher, memory_map)


def load_searcher(
    artifacts_dir: str | os.PathLike[str],
    *,
    verify: Verify = "manifest",
    memory_map: bool = True,
) -> Searcher:
    """Do what `load` does, under ScaNN's name for it."""
    check_path("artifacts_dir", artifacts_dir)
    return load(artifacts_dir, verify=verify, memory_map=memory_map)


def _load(
    path: str | os.PathLike[str], verify: Verify, kind: type[S], memory_map: bool = True
) -> S:
    check_path("path", path)
    check_flag("memory_map", memory_map)

    root = Path(path)

    def read() -> tuple[State, object]:
        return load_state(path, verify=verify), log_signature(root)

    def attempt(found: tuple[State, object]) -> S:
        state = found[0]
        searcher = kind(state if memory_map else state.in_memory())
        if state.log is not None:
            replay(_make(searcher), root, state.log)
        return searcher

    return open_unchanged(read, attempt, path, lambda found: (found[0].log, found[1]))


def _make(searcher: Searcher) -> Any:
    def make(change: Change) -> None:
        docids, first, rows = change
        if rows is None:
            searcher.delete(docids)
            return
        following = searcher._live.view.books.following
        if docids is None and following != first:
            raise InvalidInputError(f"it gives row ids from {first} on; expected {following}")
        searcher.upsert(docids, rows)

    return make


def open(
    path: str | os.PathLike[str],
    *,
    mode: Literal["rw", "r"] = "rw",
    durability: Durability = "always",
    verify: Verify = "manifest",
    flush_interval: float = 0.05,
    checkpoint_at: float | None = 0.5,
) -> DurableSearcher:
    """Open a saved index for changes that last: each is in a log before it is acknowledged.

    What a process that died had logged is there again. ``docs/storage.md`` says what is promised.
    Once it is closed it refuses changes, and goes on searching what it held.

    Parameters
    ----------
    path : path
        A directory that `Searcher.save` wrote.
    mode : {"rw", "r"}
        ``"rw"`` keeps other writers out; readers may come. ``"r"`` writes nothing and refuses
        changes; it shows what was acknowledged when it was opened.
    durability : {"always", "batch", "none"}
        When the log is flushed to disk. A process that is killed loses nothing. When the machine
        fails, ``"always"`` loses nothing, ``"batch"`` at most the last `flush_interval`, and
        ``"none"`` what the system had not written yet: always the latest changes.
    verify : {"manifest", "full"}
        As in `load`; the log is always checked.
    flush_interval : float
        Seconds within which ``"batch"`` flushes what came.
    checkpoint_at : float or None
        The log is folded into the index in the background once it is larger than this share of
        the index, and than 16 MB; None: only by `DurableSearcher.checkpoint`. Opening makes the
        changes in the log once more.

    Returns
    -------
    DurableSearcher
        To be closed, as by ``with``: others can change the index then.

    Raises
    ------
    LockedError
        If it is open for changes already.
    IndexFormatError
        If there is no index, it is of another version, or it is damaged.
    OSError
        If the directory cannot be written.

    Examples
    --------
    >>> import tempfile, numpy as np, swann
    >>> db, folder = np.eye(4, dtype=np.float32), tempfile.mkdtemp()
    >>> builder = swann.builder(db, 1, "dot_product").score_brute_force()
    >>> builder.build(docids=["a", "b", "c", "d"]).save(folder)
    >>> with swann.open(folder) as index:
    ...     _ = index.upsert("e", -db[0])
    >>> swann.load(folder).docids
    ['a', 'b', 'c', 'd', 'e']
    """
    check_path("path", path)
    if not isinstance(mode, str) or mode not in ("rw", "r"):
        raise ConfigError(f"mode is {mode!r}; expected 'rw' or 'r'")
    if not isinstance(durability, str) or durability not in ("always", "batch", "none"):
        raise ConfigError(f"durability is {durability!r}; expected 'always', 'batch' or 'none'")
    check_number("flush_interval", flush_interval, most=3600)
    if checkpoint_at is not None:
        check_number("checkpoint_at", checkpoint_at, most=1e9)
    if mode == "r":
        searcher = _load(path, verify, DurableSearcher)
        searcher._live.journal = NoJournal("it was opened with mode='r'")
        return searcher
    root = Path(path).absolute()  # wherever the process goes
    if root.is_file():
        raise IndexFormatError(
            f"{root} is a file; expected a directory: swann.load the file and save it to one"
        )
    if root.is_dir() and is_sharded(root):
        raise IndexFormatError(
            f"{root} holds an index in shards, which a checkpoint would put together; "
            "DistributedSearcher.open(..., mode='rw') changes it, and swann.load(...).save(...) "
            "makes an index of one piece that can be opened"
        )
    load_state(root)  # before anything is written to it
    lock = DirectoryLock(root, "open")
    try:
        state = load_state(root, verify=verify)
        searcher = DurableSearcher(state)
        point = begin_log(root) if state.log is None else state.log
        reader = replay(_make(searcher), root, point)
        searcher._files = DurableFiles(
            searcher._live, reader, point, root, lock, durability, flush_interval, checkpoint_at
        )
    except BaseException:
        lock.release()
        raise
    return searcher
