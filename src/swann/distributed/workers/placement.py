"""Which workers have which shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

__all__ = ["place"]


def place(
    current: Mapping[int, AbstractSet[str]], num_shards: int, workers: Sequence[str], replicas: int
) -> dict[int, set[str]]:
    """Choose the workers of each shard: about as many shards each, moving as few as possible.

    Parameters
    ----------
    current : mapping of int to set of str
        Who has them now.
    num_shards : int
        How many there are.
    workers : sequence of str
        Who may have some; in the order in which they came.
    replicas : int
        Workers a shard; all, where there are fewer.

    Returns
    -------
    dict of int to set of str
    """
    wanted = min(replicas, len(workers))
    load = dict.fromkeys(workers, 0)
    chosen: dict[int, set[str]] = {}
    for shard in range(num_shards):
        kept = sorted(name for name in current.get(shard, ()) if name in load)[:wanted]
        chosen[shard] = set(kept)
        for name in kept:
            load[name] += 1
    for names in chosen.values():
        while len(names) < wanted:
            name = min((name for name in workers if name not in names), key=load.__getitem__)
            names.add(name)
            load[name] += 1
    while load:
        most, least = max(load, key=load.__getitem__), min(load, key=load.__getitem__)
        movable = (s for s, names in chosen.items() if most in names and least not in names)
        moved = next(movable, None)
        if load[most] - load[least] <= 1 or moved is None:
            break
        chosen[moved].remove(most)
        chosen[moved].add(least)
        load[most], load[least] = load[most] - 1, load[least] + 1
    return chosen
