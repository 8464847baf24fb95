"""A worker on its own."""

from __future__ import annotations

import itertools
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from sharded import CONFIGS, interrupted, save, vectors, wait_until

from swann.distributed.opening import describe, open_message
from swann.distributed.ray_pool import _RayHandle
from swann.distributed.storage import Storage
from swann.distributed.tail import Record, Tail, message_of, parts_of
from swann.distributed.wire import Message, pack, pack_whole, receive, send, unpack_whole
from swann.distributed.workers.pools import CONCURRENCY, LocalPool, LostError, _LocalHandle
from swann.distributed.workers.socket_handle import SocketHandle
from swann.distributed.workers.worker import Worker
from swann.distributed.workers.worker_process import serve


def test_a_shard_that_was_opened_again_is_not_closed_by_what_was_sent_before(
    tmp_path: Path,
) -> None:
    save(tmp_path, 2, CONFIGS["dot"](vectors(300)).build())
    description = describe(Storage(tmp_path))
    worker = Worker()

    def tell(method: str, turn: int) -> None:
        message = open_message(description, 0) if method == "open" else Message({}, [])
        message.fields.update(key="k", shard=0, turn=turn)
        assert "error" not in worker.handle(method, message).fields

    def is_open() -> bool:
        return "k/0" in worker.handle("health", Message({}, [])).fields["shards"]

    tell("open", 1)
    tell("open", 2)  # messages may be answered in another order than they were sent
    tell("close", 1)
    assert is_open()
    tell("close", 2)
    assert not is_open()
    tell("close", 3)
    tell("open", 4)
    assert is_open()


def test_a_worker_that_is_behind_does_not_answer(tmp_path: Path) -> None:
    save(tmp_path, 1, CONFIGS["dot"](vectors(300)).build())
    description = describe(Storage(tmp_path))
    worker = Worker()
    message = open_message(description, 0)
    message.fields.update(key="k", shard=0, turn=1)
    assert worker.handle("open", message).fields == {"upto": 0}
    queries = vectors(2, seed=1)
    asked = {"key": "k", "shards": [0], "k": 3, "candidates": 9, "threads": 1, "selected": False}
    arrays = [queries, *description.open_head().choose(queries, 4)]

    def answer(least: int) -> Message:
        return worker.handle("search", Message({**asked, "least": least}, arrays))

    assert answer(0).fields == {"shards": [[0, 0, 0]]}
    assert answer(1) == ({"shards": []}, [])


def test_messages_in_one_piece() -> None:
    arrays = [
        np.arange(3, dtype=np.uint8),
        np.arange(6, dtype=np.float32).reshape(2, 3)[:, ::2],
        np.zeros((0, 4), np.int64),
        np.arange(5, dtype=np.uint64),
    ]
    for fields in ({}, {"key": "ü"}, {"key": "longer", "shards": [1, 2]}):
        read = unpack_whole(pack_whole(Message(fields, arrays)))
        assert read.fields == fields
        for array, wanted in zip(read.arrays, arrays, strict=True):
            assert array.dtype == wanted.dtype
            assert array.flags.aligned
            np.testing.assert_array_equal(array, wanted)
    whole = pack_whole(Message({}, arrays))
    objects = whole.replace(b'"|u1"', b'"|O8"')
    for damaged in (b"", whole[:7], whole[:20], whole[:-9], objects):
        with pytest.raises(ValueError, match=r"message|array|buffer|char"):
            unpack_whole(damaged)


def said(data: bytes) -> Message | None:
    """What is received where the other side writes this and goes."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            theirs.sendall(data)
        return receive(ours)


def test_what_is_received_is_whole_or_refused() -> None:
    message = Message({"key": 3}, [np.arange(5, dtype=np.uint32)])
    whole = b"".join(pack(message))
    read = said(whole)
    assert read is not None
    assert read.fields == {"key": 3}
    np.testing.assert_array_equal(read.arrays[0], message.arrays[0])
    for length in (0, 3, 4, 9, len(whole) - 1):
        assert said(whole[:length]) is None
    with pytest.raises(ValueError, match="array of dtype"):
        said(whole.replace(b'"<u4"', b'"|O8"'))
    with pytest.raises(ValueError, match="a header of 67108865 bytes"):
        said(b"\x01\0\0\x04" + whole[4:])  # room is not made for it


def test_a_message_has_room_for_any_number_of_small_changes() -> None:
    one, everybody = np.zeros(1, np.uint32), np.ones(1, bool)
    tail = Tail(7)
    for sequence in range(8, 5008):
        tail.append(Record(sequence, one, everybody, np.zeros((2, 1), bool), None))
    message = message_of(tail.after(7), 1, 4)
    assert len(pack(message)[0]) < 500  # the header, whose length has a limit
    assert [part.sequence for part in parts_of(message.arrays)] == list(range(8, 5008))
    assert 10 < len(tail.after(7, most=1000)) < 100  # deletions take room, too
    assert len(tail.after(5000, most=1)) == 1


def test_an_interrupted_message_spoils_no_other() -> None:
    ours, theirs = socket.socketpair()
    handle = SocketHandle("socket", ours, lambda: None)

    def answer() -> None:
        while (message := receive(theirs)) is not None:
            send(theirs, Message({"id": message.fields["id"], "fields": {}}, []))

    thread = threading.Thread(target=answer)
    thread.start()
    large = Message({}, [np.zeros(1 << 20, np.uint8)])  # more than a socket takes at once
    came, line = True, 0
    while came:
        line += 1
        came = interrupted(lambda: handle.call("any", large, lambda _: None), line)
        assert handle.answers(10)
    assert line > 20
    assert handle.alive
    assert not handle._waiting
    handle.stop()
    thread.join(10)
    theirs.close()


def test_a_worker_that_cannot_read_a_message_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = threading.Event()
    monkeypatch.setattr(os, "_exit", lambda _: ended.set())
    others = set(threading.enumerate())
    ours, theirs = socket.socketpair()
    serve(theirs, Worker(), 1)
    ours.sendall(b"\xff" * 64)  # the middle of a message, taken for its beginning
    assert ended.wait(10)
    ours.close()
    for thread in set(threading.enumerate()) - others:
        thread.join(10)
    theirs.close()
    assert "a header of" in capsys.readouterr().err


def handles() -> Iterator[Any]:
    ours, theirs = socket.socketpair()
    with theirs:
        handle = SocketHandle("socket", ours, lambda: None)
        yield handle
        handle.stop()
    yield _RayHandle(None, None, "actor", 0)  # the call fails, with its number drawn


def numbers(lock: Any, drawn: list[int]) -> Iterator[int]:
    for number in itertools.count():
        assert lock.locked()  # else two threads may draw the same, without the interpreter's lock
        drawn.append(number)
        yield number


def test_numbers_are_drawn_by_one_thread_at_a_time() -> None:
    drawn: list[int] = []
    for handle in handles():
        handle._numbers = numbers(handle._lock, drawn)
        handle.call("health", Message({}, []), lambda _: None)
    pool = LocalPool()
    pool._numbers = numbers(pool._lock, drawn)  # type: ignore[assignment]
    pool.start().stop()
    assert drawn == [0, 0, 0]


class Stuck:
    """A worker that answers nothing but about its health, until it is let go."""

    def __init__(self) -> None:
        self.free, self.most, self.asked = threading.Event(), 0, 0
        self._lock = threading.Lock()

    def handle(self, method: str, message: Message) -> Message:
        if method != "health":
            with self._lock:
                self.asked += 1
                self.most = max(self.most, self.asked)
            self.free.wait(30)
            with self._lock:
                self.asked -= 1
        return Message({"method": method, **message.fields}, [])


@pytest.mark.parametrize("kind", ["socket", "thread"])
def test_health_is_answered_while_all_threads_are_busy(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "_exit", lambda _: None)  # what a worker does when the socket ends
    others = set(threading.enumerate())
    worker: Any = Stuck()
    ours, theirs = socket.socketpair()
    if kind == "socket":
        serve(theirs, worker)
        handle: Any = SocketHandle("socket", ours, lambda: None)
    else:
        handle = _LocalHandle("thread", worker)
    answers: SimpleQueue[Any] = SimpleQueue()
    for number in range(3 * CONCURRENCY):
        handle.call("open", Message({"number": number}, []), answers.put)
    handle.call("health", Message({}, []), answers.put)
    assert answers.get(timeout=10).fields == {"method": "health"}
    assert wait_until(lambda: worker.most == CONCURRENCY)
    worker.free.set()
    numbers = [answers.get(timeout=10).fields["number"] for _ in range(3 * CONCURRENCY)]
    assert sorted(numbers) == list(range(3 * CONCURRENCY))
    assert worker.most == CONCURRENCY
    handle.call("health", Message({}, []), answers.put)
    assert answers.get(timeout=10).fields == {"method": "health"}
    handle.stop()
    for thread in set(threading.enumerate()) - others:
        thread.join(10)
    ours.close()
    theirs.close()


def test_threads_that_cannot_begin_any_more_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:  # as where the interpreter ends
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    handle = _LocalHandle("thread", Worker())
    monkeypatch.setattr(handle._threads, "submit", refuse)
    answers: SimpleQueue[Any] = SimpleQueue()
    handle.call("search", Message({}, []), answers.put)
    assert isinstance(answers.get(timeout=10), LostError)
    handle.stop()
