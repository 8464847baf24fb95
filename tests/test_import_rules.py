"""The house rule: imports run downward only, and only `swann.kernels` opens the native module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import swann

ROOT = Path(swann.__file__).parent

# A module may import from its own level and from those before it; a new one needs a place here.
LEVELS = [
    {"errors", "distance", "config", "vectors", "files", "sources", "tensors", "limits"}
    | {"median"},
    {"kernels"},
    {"partition", "quantize"},
    {"index"},
    {"autopilot", "upkeep", "builder", "building", "stages", "searcher", "storage", "evaluate"},
    {"plan", "distributed"},
    {"compat", "cli", "integrations", "scann_ops", "scann_ops_pybind"},
    {"__init__", "__main__"},
]
LEVEL = {part: level for level, parts in enumerate(LEVELS) for part in parts}

# The same within the parts that have folders: these, and the modules beside them.
INNER_LEVELS = {
    "index": [
        {"packed", "routes", "rows", "shards", "source"}
        | {"state", "docids", "docid_arrays", "updates", "health"},
        {"building"},
        {"disk"},
        {"log"},
        {"changing"},
        {"__init__"},
    ],
    "distributed": [
        {"storage", "opening", "wire", "tail", "metrics", "results"},
        {"building"},
        {"workers", "ray_pool"},
        {"changing"},
        {"searching"},
        {"serve"},
        {"__init__"},
    ],
}
INNER_LEVEL = {
    part: {piece: level for level, pieces in enumerate(levels) for piece in pieces}
    for part, levels in INNER_LEVELS.items()
}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(["swann", *(part for part in parts if part != "__init__")])


MODULES = {module_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def part_of(module: str) -> str:
    """The top-level part that a module belongs to, as in LEVELS."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def piece_of(module: str) -> str:
    """The folder or module of its part that a module belongs to, as in INNER_LEVELS."""
    parts = module.split(".")
    return parts[2] if len(parts) > 2 else "__init__"


def imports_of(module: str, path: Path) -> Iterator[str]:
    """Every module of swann that the file names, those inside functions too."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join([*parents[: len(parents) - node.level + 1], *filter(None, [base])])
            # `from swann import x` may mean a module or a name in one.
            names = [
                full
                if (full := f"{base}.{alias.name}") in MODULES or full == "swann._native"
                else base
                for alias in node.names
            ]
        else:
            continue
        yield from (name for name in names if name == "swann" or name.startswith("swann."))


def test_the_modules_are_found() -> None:
    assert {"swann", "swann.builder", "swann.compat.scann_ops_pybind"} <= MODULES.keys()


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_downward(module: str) -> None:
    part = part_of(module)
    assert part in LEVEL, f"{module} has no level: give it one in this test"
    for imported in imports_of(module, MODULES[module]):
        if imported == "swann._native":
            assert part == "kernels", f"{module} imports the native module; only kernels/ may"
            continue
        assert LEVEL[part_of(imported)] <= LEVEL[part], f"{module} imports {imported}, upward"


@pytest.mark.parametrize("module", [m for m in MODULES if part_of(m) in INNER_LEVEL])
def test_imports_within_a_part_run_downward(module: str) -> None:
    part, piece = part_of(module), piece_of(module)
    levels = INNER_LEVEL[part]
    assert piece in levels, f"{module} has no level in {part}/: give it one in this test"
    for imported in imports_of(module, MODULES[module]):
        if part_of(imported) == part:
            other = piece_of(imported)
            assert levels[other] <= levels[piece], f"{module} imports {imported}, upward"


def test_imports_have_no_cycles() -> None:
    graph = {module: set(imports_of(module, path)) for module, path in MODULES.items()}
    for module, imported in graph.items():
        # A package's __init__ may be named by its own members.
        imported.discard(module)
        imported.difference_update({p for p in imported if module.startswith(f"{p}.")})
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_relative_and_local_imports_are_seen(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text("def f():\n    from ..kernels import g\n    from swann import _native\n")
    assert list(imports_of("swann.index.x", path)) == ["swann.kernels", "swann._native"]
