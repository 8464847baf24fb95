"""What the package offers, and what importing it costs."""

from __future__ import annotations

import importlib.metadata
import inspect
import json
import subprocess
import sys

import numpy as np

import swann

NAMES = [
    "AHConfig",
    "AutopilotConfig",
    "BruteForceConfig",
    "Builder",
    "ConfigError",
    "CorruptIndexError",
    "DTypeError",
    "DurableSearcher",
    "FormatVersionError",
    "IncompleteError",
    "IncrementalMode",
    "IndexConfig",
    "IndexFormatError",
    "InvalidInputError",
    "LockedError",
    "LogError",
    "MissingExtraError",
    "NonFiniteError",
    "OperatingPoint",
    "ProjectionConfig",
    "ReadOnlyError",
    "RecallWarning",
    "ReorderConfig",
    "ReorderType",
    "ScannBuilder",
    "SearchResult",
    "Searcher",
    "ShapeError",
    "StorageError",
    "SwannError",
    "TreeConfig",
    "UnknownDocidError",
    "UpperTreeConfig",
    "WorkerError",
    "ZeroVectorError",
    "__version__",
    "build",
    "builder",
    "exact_neighbors",
    "leaf_ladder",
    "load",
    "load_scann",
    "load_searcher",
    "open",
    "recall",
    "recall_with_ties",
    "scann_ops",
    "scann_ops_pybind",
    "speed_recall",
]


def test_the_names() -> None:
    assert swann.__all__ == NAMES == sorted(NAMES)
    for name in NAMES:
        assert getattr(swann, name).__doc__, f"{name} has no docstring"


def test_public_methods_have_docstrings() -> None:
    for owner in (swann.Builder, swann.Searcher, swann.IndexConfig, swann.SearchResult):
        for name, member in inspect.getmembers(owner):
            if not name.startswith("_") and callable(member):
                assert inspect.getdoc(member), f"{owner.__name__}.{name} has no docstring"


def test_the_version_is_that_of_the_distribution() -> None:
    assert swann.__version__ == importlib.metadata.version("swann")


def test_the_builder_is_a_function() -> None:
    # Its module has the same name; the function must win, whoever imports what first.
    import swann.builder as module_or_function

    assert inspect.isfunction(swann.builder)
    assert module_or_function is swann.builder  # type: ignore[comparison-overlap]


def in_a_fresh_process(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout


def test_import_loads_only_numpy() -> None:
    code = """
import json, sys
before = set(sys.modules)
import swann
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(json.dumps(sorted(new - sys.stdlib_module_names)))
"""
    assert set(json.loads(in_a_fresh_process(code))) == {"numpy", "swann"}


def test_a_first_build_and_search_do_not_load_masked_arrays() -> None:
    # NumPy loads them when they are first named, `np.median` among others does: 16 ms.
    code = """
import sys
import numpy as np, swann
db = np.random.default_rng(0).standard_normal((2000, 8)).astype(np.float32)
for measure in "dot_product", "squared_l2":
    searcher = swann.builder(db, 3, measure).tree(20, 5).score_ah(2).reorder(10).build()
    searcher.search(db[0].tolist())
print("numpy.ma" in sys.modules)
"""
    assert in_a_fresh_process(code) == "False\n"


def test_import_is_fast() -> None:
    # numpy is most of the 150 ms that an import may take; what swann adds, in CPU time, is what can
    # be tested on a busy machine (.04 s on a quiet one).
    code = """
import time
import numpy, numpy.typing
start = time.process_time()
import swann
print(time.process_time() - start)
"""
    assert min(float(in_a_fresh_process(code)) for _ in range(5)) < 0.15


def test_scann_ops_pybind_comes_from_the_package() -> None:
    from swann import scann_ops_pybind

    searcher = scann_ops_pybind.builder(np.eye(3), 1, "dot_product").score_brute_force().build()
    neighbors, _ = searcher.search(np.array([0, 1, 0]))
    assert neighbors.tolist() == [1]


def test_modules_are_where_scann_has_them() -> None:
    program = """
from swann.scann_ops.py import scann_ops as tf_names, scann_ops_pybind
from swann.scann_ops.py.scann_builder import IncrementalMode, ReorderType, ScannBuilder
from swann.scann_ops.py.scann_ops_pybind import load_searcher
from swann.scann_ops_pybind import builder
import swann.scann_ops.py.scann_ops_pybind
import swann
assert builder is scann_ops_pybind.builder is swann.scann_ops_pybind.builder
assert load_searcher is swann.scann_ops_pybind.load_searcher is not swann.load_searcher
assert tf_names.builder is swann.scann_ops.builder is not builder
assert ScannBuilder is swann.ScannBuilder and ReorderType is swann.ReorderType
assert IncrementalMode is swann.IncrementalMode
for module in (swann.scann_ops, swann.scann_ops_pybind, tf_names, scann_ops_pybind):
    assert "builder" in module.__all__ and "ScannSearcher" in module.__all__
    assert "may notice" in module.__doc__
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
