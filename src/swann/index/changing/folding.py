"""New arrays in the place of those there are, without changes beside them: folded, or built anew.

The functions here make the `View` that comes next and leave the one they are given as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from swann.config import IndexConfig
from swann.errors import InvalidInputError
from swann.index import updates
from swann.index.building.build import Progress, build_index
from swann.index.building.learned import Learned
from swann.index.docids import Docids
from swann.index.health import Health
from swann.index.packed import PackedIndex
from swann.index.state import Books, State, View

__all__ = ["folded", "measured", "rebuilt", "state_of"]


def folded(view: View) -> View:
    """Make one set of arrays of everything that is alive."""
    packed, names = view.packed, view.docids
    surplus = names is not None and len(names) != packed.num_datapoints
    if not packed.changed and not surplus:
        return view
    packed = updates.folded(packed)
    if names is not None:
        # Users see docids only: numbers begin at 0 again, in the same order.
        numbers = packed.numbers()
        alive = np.sort(numbers)
        names = names.kept(alive)
        ranks = np.searchsorted(alive, numbers)
        packed = dataclasses.replace(packed, ids=ranks.astype(np.uint32))
    return _in_place(view, packed, names, view.plan, view.books.changes)


def rebuilt(
    view: View,
    plan: IndexConfig,
    threads: int,
    progress: Progress | None,
    build: Callable[..., PackedIndex] | None,
) -> View:
    """Build an index by a plan, or what `build` makes, of everything that is alive."""
    numbers = updates.live_numbers(view.packed)
    vectors = updates.vectors(view.packed, numbers)
    learned = Learned(view.packed.tree_map, view.packed.code_metric)
    learned = learned.lifted(view.packed.projection, view.packed.dimension)
    try:
        if build is None:
            packed = build_index(
                vectors, plan, num_threads=threads, progress=progress, learned=learned
            )
        else:
            packed = build(vectors, learned=learned)
            plan = packed.config
    except InvalidInputError as error:  # decoded, some may be zeros, or too long
        raise type(error)(
            f"the index cannot be built anew from the datapoints as it keeps them: {error}; "
            "expected rows in float32, as reorder() keeps them"
        ) from error
    del vectors
    names = view.docids
    if names is not None:
        names = names.kept(numbers)
        numbers = np.arange(len(numbers))
    order = numbers if packed.ids is None else numbers[packed.ids]
    packed = dataclasses.replace(packed, ids=order.astype(np.uint32))
    return _in_place(view, packed, names, plan, 0)


def state_of(view: View) -> State:
    """Return what is to be kept of a view that was folded."""
    packed = view.packed
    return State(
        # Its changes are its own, and its rows in the order of the leaves.
        updates.folded(packed) if packed.in_database_order else dataclasses.replace(packed),
        None if view.docids is None else view.docids.copy(),
        view.books.following,
        view.plan,
    )


def measured(books: Books, packed: PackedIndex) -> Health | None:
    """Measure new arrays, where the old ones were."""
    return None if books.health is None else Health.of(packed)


def _in_place(
    view: View, packed: PackedIndex, docids: Docids | None, plan: IndexConfig, changes: int
) -> View:
    """Return new arrays, without changes beside them, in the place of those there are.

    `changes` are those since the leaves were last kept in shape.
    """
    old = view.books
    following = old.following if docids is None else len(docids)
    if packed.config.tree is None and packed.ids is not None:
        in_order = following == packed.num_datapoints and np.array_equal(
            packed.ids, np.arange(following)
        )
        packed = dataclasses.replace(packed, ids=None) if in_order else packed
    return View(packed, docids, plan, Books(following, changes, measured(old, packed)))
