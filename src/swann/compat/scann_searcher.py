"""ScaNN's searcher over swann's; see `swann.compat.scann_ops_pybind`."""

from __future__ import annotations

import os
from collections.abc import ItemsView, Iterator, Mapping
from typing import Any

import numpy as np

from swann.config import IndexConfig, with_finer_rows
from swann.errors import ConfigError
from swann.index.docids import check_docids
from swann.searcher import Searcher, SearchResult

__all__ = ["ScannSearcher", "read_config", "write_config"]

_DEFAULT = -1


class _Places(Mapping[Any, int]):
    """The place of each docid among the docids of a searcher, as they are when it is asked for.

    A docid is looked up; its place is counted (a millisecond for 300,000).
    """

    def __init__(self, searcher: Searcher) -> None:
        self._searcher = searcher

    def __contains__(self, docid: object) -> bool:
        return docid in self._searcher

    def __getitem__(self, docid: Any) -> int:
        return self._searcher._live.place_of(docid)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._searcher.docids or ())

    def __len__(self) -> int:
        return len(self._searcher)

    def items(self) -> ItemsView[Any, int]:
        return {docid: place for place, docid in enumerate(self)}.items()

    def __repr__(self) -> str:
        return repr(dict(self.items()))


class ScannSearcher:
    """ScaNN's searcher over a `swann.Searcher`, which is its attribute `searcher`.

    Where ScaNN's arguments may be None or -1, they mean the default given to the builder. With
    docids a search returns them in lists, as ScaNN does, in place of an array of row numbers.
    """

    def __init__(self, searcher: Searcher, docids: object = None) -> None:
        if not isinstance(searcher, Searcher):
            raise ConfigError(f"searcher is {searcher!r}; expected a swann.Searcher")
        if docids is not None and check_docids(docids) != searcher.docids:
            raise ConfigError(
                "docids differ from those of searcher; expected None: give docids to build()"
            )
        self.searcher = searcher

    @property
    def docids(self) -> list[Any] | None:
        """The docids of all datapoints, a new list of n; None for an index without."""
        return self.searcher.docids

    @property
    def docid_to_id(self) -> Mapping[Any, int] | None:
        """The place of each docid in `docids`, always up to date; None for an index without."""
        return _Places(self.searcher) if self.searcher.has_docids else None

    def search(
        self,
        q: Any,
        final_num_neighbors: int | None = -1,
        pre_reorder_num_neighbors: int | None = -1,
        leaves_to_search: int | None = -1,
    ) -> SearchResult:
        """Find the neighbors of one query; fewer come back where there are fewer."""
        try:
            if final_num_neighbors is pre_reorder_num_neighbors is leaves_to_search is _DEFAULT:
                found = self.searcher.search(q)
            else:
                found = self.searcher.search(
                    q,
                    _or_default(final_num_neighbors),
                    _or_default(pre_reorder_num_neighbors),
                    _or_default(leaves_to_search),
                )
        except ConfigError:
            asked = _or_default(final_num_neighbors)
            fewer = self._at_most(asked)
            if fewer is asked:
                raise
            found = self.search(q, fewer, pre_reorder_num_neighbors, leaves_to_search)
        worst = found.distances[-1]
        if worst != worst:  # NaN: there are fewer
            count = int(np.count_nonzero(~np.isnan(found.distances)))
            found = SearchResult(found.indices[:count], found.distances[:count])
        return self._named(found)

    def _at_most(self, asked: int | None) -> int | None:
        """Return how many neighbors to ask for: no more than there are."""
        asked = _or_default(asked)
        wanted = self.searcher._limits.defaults.neighbors if asked is None else asked
        if isinstance(wanted, (int, np.integer)) and 0 < wanted < 2**63:
            there = max(1, len(self.searcher))
            return there if wanted > there else asked
        return asked

    def _named(self, found: SearchResult) -> SearchResult:
        """Return docids in lists."""
        if not self.searcher.has_docids:
            return found
        return SearchResult(found.indices.tolist(), found.distances)

    def search_batched(
        self,
        queries: Any,
        final_num_neighbors: int | None = None,
        pre_reorder_num_neighbors: int | None = None,
        leaves_to_search: int | None = None,
    ) -> SearchResult:
        """Find the neighbors of many queries on one thread."""
        return self._named(
            self.searcher.search_batched(
                queries,
                self._at_most(final_num_neighbors),
                _or_default(pre_reorder_num_neighbors),
                _or_default(leaves_to_search),
            )
        )

    def search_batched_parallel(
        self,
        queries: Any,
        final_num_neighbors: int | None = None,
        pre_reorder_num_neighbors: int | None = None,
        leaves_to_search: int | None = None,
        batch_size: int = 256,
    ) -> SearchResult:
        """Find the neighbors of many queries on all threads."""
        return self._named(
            self.searcher.search_batched_parallel(
                queries,
                self._at_most(final_num_neighbors),
                _or_default(pre_reorder_num_neighbors),
                _or_default(leaves_to_search),
                batch_size=batch_size,
            )
        )

    def serialize(self, artifacts_dir: str | os.PathLike[str], relative_path: bool = False) -> None:
        """Save the index to a directory. It can be moved, whatever `relative_path` says."""
        self.searcher.serialize(artifacts_dir)

    def upsert(self, docids: Any, database: Any, batch_size: int = 1) -> None:
        """Insert datapoints, or replace those that are there; see `swann.Searcher.upsert`.

        Raises
        ------
        ConfigError
            If the index was built without docids.
        """
        self._need_docids("upsert")
        self.searcher.upsert(docids, database, batch_size)

    def delete(self, docids: Any) -> None:
        """Remove datapoints; see `swann.Searcher.delete`.

        Raises
        ------
        UnknownDocidError
            If one is not there; it is a KeyError too. Then none is removed.
        ConfigError
            If the index was built without docids.
        """
        self._need_docids("delete")
        self.searcher.delete(docids)

    def _need_docids(self, method: str) -> None:
        if not self.searcher.has_docids:
            raise ConfigError(
                f"cannot {method}: docids were not given to build() (swann.Searcher does without)"
            )

    def rebalance(self, config: str | None = None) -> int:
        """Build the index anew, from another configuration text if there is one.

        Returns the number of datapoints. See `swann.Searcher.rebalance`.
        """
        searcher = self.searcher
        settings = read_config(config, searcher.dimension) if config else None
        searcher.rebalance(settings)
        return searcher.size()

    def reserve(self, num_datapoints: int) -> None:
        """Make room for so many datapoints in all; see `swann.Searcher.reserve`."""
        self.searcher.reserve(num_datapoints)

    def initialize_health_stats(self) -> None:
        """Measure all datapoints for `get_health_stats`."""
        self.searcher.initialize_health_stats()

    def get_health_stats(self) -> dict[str, float]:
        """Return figures that tell when updates have worn the index out."""
        return self.searcher.get_health_stats()

    def size(self) -> int:
        """Return the number of datapoints."""
        return self.searcher.size()

    def set_num_threads(self, num_threads: int) -> None:
        """Set the threads of `search_batched_parallel`."""
        self.searcher.set_num_threads(num_threads)

    def config(self) -> str:
        """Return the settings as ScaNN's text proto, as `create_searcher` takes them."""
        return write_config(self.searcher.config, self.searcher.dimension)

    def __len__(self) -> int:
        return self.size()

    def __repr__(self) -> str:
        return f"ScannSearcher({self.searcher!r})"


def _or_default(value: int | None) -> int | None:
    return None if isinstance(value, (int, np.integer)) and value == _DEFAULT else value


# Texts are imported where they are used: they would be a sixth of the time of `import swann`.


def write_config(config: IndexConfig, dimension: int) -> str:
    """Return settings as ScaNN's text proto."""
    from swann.compat.scann_config import config_to_text

    return config_to_text(config, dimension)


def read_config(text: str, dimension: int) -> IndexConfig:
    """Read settings from ScaNN's text proto, or from the JSON of `IndexConfig.to_dict`."""
    import json

    from swann.compat.scann_config import config_from_text

    if not isinstance(text, str):
        raise ConfigError(f"scann_config is of type {type(text).__name__}; expected str")
    if not text.lstrip().startswith("{"):
        return with_finer_rows(config_from_text(text, dimension))
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigError(
            f"scann_config is {text[:40]!r}...; expected a text proto, or JSON"
        ) from None
    return IndexConfig.from_dict(settings)
