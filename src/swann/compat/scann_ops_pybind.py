"""`scann.scann_ops_pybind` over swann: change the import, and a ScaNN program runs.

::

    from swann import scann_ops_pybind          # was: from scann import scann_ops_pybind

    searcher = (
        scann_ops_pybind.builder(db, 10, "dot_product")
        .tree(num_leaves=2000, num_leaves_to_search=100)
        .score_ah(2, anisotropic_quantization_threshold=0.2)
        .reorder(100)
        .build()
    )
    neighbors, distances = searcher.search(q)

Function and argument names are those of ScaNN 1.4.2. An argument that swann does not know is
refused with a `ConfigError` that names it. Differences that a program may notice:

- Indices are int64, not uint32.
- NaN and infinities are refused, in databases, queries and updates. ScaNN refuses them in a single
  query, answers the others of a batch, and builds over a database that holds some.
- Errors are those of `swann.errors`: most are ValueErrors, where ScaNN raises RuntimeErrors too.
- ``leaves_to_search=0`` is refused; ScaNN takes the default. `upper_tree` called twice adds a
  level; ScaNN refuses it.
- A batched search pads with -1 (among docids that are strings, None), not 0, where a query finds
  fewer neighbors than asked for. As in ScaNN, there are no more columns than datapoints, and a
  single search comes back shorter.
- A search that asks for more neighbors than it reorders gets as many as it asked for.
- ``distance_measure`` may also be ``"cosine"``, and residuals serve every measure.
- Texts of configurations are ScaNN's, and mean the same; `swann.compat.scann_config` says which
  fields are read. What ScaNN refuses or skips in silence is a `ConfigError` here.
- Docids are strings, or ints from 0 on. The caller's list is copied, never changed; the searcher's
  `docids` is a new list every time (``docid in searcher.docid_to_id`` looks one up). `upsert` and
  `delete` take any sequence of docids, do all or nothing, and refuse a docid that comes twice.
- An index keeps rows once. `score_brute_force(quantize)` and a `reorder` of finer precision keep
  and score the finer rows: more exact than ScaNN, which scores coarse rows first, and less memory.
- `autopilot` beside other stages is refused; ScaNN drops the others.
- `rebalance` keeps the distance measure: a text with another is refused.
- `serialize` writes files of swann's own. `load_searcher` opens those, and what ScaNN serialized
  (see `swann.load_scann`); pickled docids are read as plain strings, and nothing is executed.
"""

from __future__ import annotations

import os
from typing import Any

from swann.building import build_searcher
from swann.compat.scann_builder import ScannBuilder, refuse_unknown
from swann.compat.scann_load import is_scann_directory, load_scann
from swann.compat.scann_searcher import ScannSearcher, read_config
from swann.config import IncrementalMode, ReorderType, check_count, check_path
from swann.distance import DistanceMeasure
from swann.index.disk.store import holds_index
from swann.storage import load_searcher as _load_searcher
from swann.vectors import as_database

__all__ = [
    "IncrementalMode",
    "ReorderType",
    "ScannBuilder",
    "ScannSearcher",
    "builder",
    "create_searcher",
    "load_searcher",
]


def builder(db: Any, num_neighbors: int, distance_measure: DistanceMeasure) -> ScannBuilder:
    """Start building an index, as `scann.scann_ops_pybind.builder` does.

    Examples
    --------
    >>> import numpy as np
    >>> searcher = builder(np.eye(3), 1, "dot_product").score_brute_force().build()
    >>> neighbors, distances = searcher.search(np.array([0, 0, 1.0]))
    >>> neighbors, distances
    (array([2]), array([1.], dtype=float32))
    """
    return ScannBuilder(db, num_neighbors, distance_measure)


def create_searcher(
    db: Any,
    scann_config: str,
    training_threads: int = 0,
    docids: object = None,
    **unused_kwargs: Any,
) -> ScannSearcher:
    """Build an index over `db` from a configuration text.

    Parameters
    ----------
    db : array_like of shape (n, d)
        The datapoints.
    scann_config : str
        ScaNN's text proto, as `ScannBuilder.create_config` and `ScannSearcher.config` of ScaNN or
        of this module return it; or the JSON of `IndexConfig.to_dict`.
    training_threads : int
        Threads to build on; 0: all cores.
    docids : sequence of str or of int, optional
        Names of the datapoints; see `swann.Builder.build`.

    Raises
    ------
    ConfigError
        If the text is malformed, written for another dimension, or asks for what swann does not
        do.

    Examples
    --------
    >>> import numpy as np
    >>> text = '''
    ...     num_neighbors: 1
    ...     distance_measure { distance_measure: "DotProductDistance" }
    ...     brute_force {}
    ... '''
    >>> create_searcher(np.eye(3), text).search(np.array([0, 0, 1.0]))[0]
    array([2])
    """
    refuse_unknown("create_searcher", unused_kwargs)
    matrix = as_database(db, allow_empty=True)
    config = read_config(scann_config, matrix.shape[1])
    threads = check_count("training_threads", training_threads, minimum=0)
    return ScannSearcher(build_searcher(matrix, config, docids, num_threads=threads))


def load_searcher(
    artifacts_dir: str | os.PathLike[str], assets_backcompat_shim: bool = True
) -> ScannSearcher:
    """Load what `ScannSearcher.serialize` saved, or what ScaNN's own did.

    Docids that ScaNN pickled are read as plain strings or ints, without unpickling.
    `assets_backcompat_shim` is ignored: a ScaNN index without a list of assets is always read.
    """
    artifacts_dir = check_path("artifacts_dir", artifacts_dir)
    if not holds_index(artifacts_dir) and is_scann_directory(artifacts_dir):
        return ScannSearcher(load_scann(artifacts_dir, docids="strings"))
    return ScannSearcher(_load_searcher(artifacts_dir))
