"""New files of a shard, with the changes behind its old ones."""

from __future__ import annotations

import dataclasses
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swann.distributed.opening import Description, open_message, open_shard
from swann.distributed.storage import Storage
from swann.distributed.tail import Record, message_of, parts_of
from swann.distributed.wire import Message
from swann.distributed.workers.copies import Copy
from swann.index import updates
from swann.index.disk.contents import manifest_of
from swann.index.disk.leaves import take_leaves
from swann.index.disk.store import arrays_of, place_array
from swann.index.state import State

__all__ = ["fold", "fold_message"]


def fold_message(
    description: Description,
    shard: int,
    records: list[Record],
    dead: NDArray[np.uint32],
    next_number: int,
) -> Message:
    """Return what a worker is asked.

    Parameters
    ----------
    description : Description
        Whose shard is folded.
    shard : int
        Which.
    records : list of Record
        The changes behind the manifest.
    dead : uint32 array
        Numbers that are given to no datapoint any more, ascending: those above them move down.
    next_number : int
        Afterwards.
    """
    opening = open_message(description, shard)
    changes = message_of(records, shard, description.dimension)
    fields = opening.fields | {"next_number": next_number}
    return Message(fields, [*opening.arrays, dead, *changes.arrays])


def fold(message: Message, cache: str | None) -> Message:
    """Write the arrays of a shard with its changes; return its manifest and its leaves' sizes."""
    fields = message.fields
    _, owned, dead = message.arrays[:3]
    copy = Copy(open_shard(message, cache), fields["base"])
    copy.apply(parts_of(message.arrays[3:]))
    packed = copy.shard.packed
    if packed.changed:
        packed = updates.folded(packed)
    # Of a datapoint with two leaves, one elsewhere, both were kept as long as it was not folded.
    packed = take_leaves(packed, owned.astype(bool))
    numbers = packed.numbers()
    numbers -= np.searchsorted(dead, numbers)
    packed = dataclasses.replace(packed, ids=numbers.astype(np.uint32))
    storage = Storage(fields["location"], cache)
    state = State(packed, None, fields["next_number"], packed.config)
    with ExitStack() as stack:
        root = storage.root
        if root is None:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        entries = {name: place_array(root, name, array) for name, array in arrays_of(state).items()}
        for entry in entries.values():
            storage.put(root / entry.file, entry.file)
    sizes = np.diff(packed.leaf_starts.astype(np.int64))
    return Message({"manifest": manifest_of(state, entries)}, [sizes])
