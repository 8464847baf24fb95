"""A worker on its own."""

from __future__ import annotations

from pathlib import Path

from sharded import CONFIGS, save, vectors

from swann.distributed.opening import describe, open_message
from swann.distributed.storage import Storage
from swann.distributed.wire import Message
from swann.distributed.worker import Worker


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
