"""ScaNN's module for TensorFlow runs without it, on anybody's tensors."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import swann
from swann import ConfigError, DTypeError, InvalidInputError, scann_ops, vectors

RNG = np.random.default_rng(0)
DB = RNG.standard_normal((300, 8), dtype=np.float32)
QUERIES = RNG.standard_normal((7, 8), dtype=np.float32)
EXACT = swann.builder(DB, 10, "dot_product").score_brute_force().build().search_batched(QUERIES)

SIGNATURES = {
    scann_ops.builder: "db num_neighbors distance_measure",
    scann_ops.create_searcher: (
        "db scann_config training_threads container shared_name docids **unused_kwargs"
    ),
    scann_ops.searcher_from_module: "module db",
    scann_ops.ScannSearcher: "searcher_handle",
    scann_ops.ScannSearcher.search: (
        "q final_num_neighbors pre_reorder_num_neighbors leaves_to_search"
    ),
    scann_ops.ScannSearcher.search_batched: (
        "q final_num_neighbors pre_reorder_num_neighbors leaves_to_search"
    ),
    scann_ops.ScannSearcher.search_batched_parallel: (
        "q final_num_neighbors pre_reorder_num_neighbors leaves_to_search"
    ),
    scann_ops.ScannSearcher.serialize_to_module: "",
    scann_ops.ScannState.recreate_handle: "",
}


@pytest.mark.parametrize("function", SIGNATURES, ids=lambda f: f.__qualname__)
def test_signatures(function: Any) -> None:
    parameters = inspect.signature(function).parameters.values()
    names = [f"**{p.name}" if p.kind is p.VAR_KEYWORD else p.name for p in parameters]
    assert [name for name in names if name != "self"] == SIGNATURES[function].split()


def test_a_program() -> None:
    searcher = (
        scann_ops.builder(db=DB, num_neighbors=10, distance_measure="dot_product")
        .tree(num_leaves=10, num_leaves_to_search=10, training_sample_size=300, soar_lambda=1.5)
        .score_ah(2, anisotropic_quantization_threshold=0.2)
        .reorder(300)
        .build(shared_name="scann", container="here")
    )
    found = searcher.search_batched_parallel(QUERIES, final_num_neighbors=10)
    assert np.array_equal(found.indices, EXACT.indices)
    assert np.array_equal(found.distances.numpy(), EXACT.distances)
    assert type(found.indices.numpy()) is np.ndarray
    neighbors, distances = searcher.search_batched(QUERIES, 4, None, -1)
    assert neighbors.shape == distances.shape == (7, 4)
    assert np.array_equal(neighbors, EXACT.indices[:, :4])
    one = searcher.search(q=QUERIES[2], final_num_neighbors=3, leaves_to_search=10)
    assert np.array_equal(one.index, EXACT.indices[2, :3])
    assert np.array_equal(one.distance, EXACT.distances[2, :3])
    assert len(searcher) == 300
    assert "ScannSearcher" in repr(searcher)


def test_modules_and_files(tmp_path: Path) -> None:
    searcher = scann_ops.builder(DB, 10, "dot_product").score_brute_force().build()
    module = pickle.loads(pickle.dumps(searcher.serialize_to_module()))
    searcher.serialize(tmp_path / "index")
    for again in (
        scann_ops.searcher_from_module(module, DB),
        scann_ops.ScannSearcher(module.recreate_handle()),
        scann_ops.load_searcher(tmp_path / "index"),
    ):
        assert np.array_equal(again.search_batched(QUERIES).indices, EXACT.indices)


def test_configurations() -> None:
    builder = scann_ops.builder(DB, 10, "dot_product").score_brute_force()
    searcher = scann_ops.create_searcher(DB, builder.create_config(), 1, shared_name=None)
    assert np.array_equal(searcher.search_batched(QUERIES).indices, EXACT.indices)
    with pytest.raises(ConfigError, match="docids"):
        builder.build(docids=["a"] * 300)
    with pytest.raises(ConfigError, match="speed"):
        builder.build(speed=3)


# ---- Anybody's tensors. The fakes speak one protocol each and nothing else.


class Fake:
    """What a tensor knows of itself."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array


class Dlpack(Fake):
    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


class Array(Fake):
    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        return self.array


class Numpy(Fake):
    def numpy(self) -> NDArray[Any]:
        return self.array


class Gradient(Dlpack):
    """PyTorch's way: a tensor that requires a gradient must be detached first."""

    requires_grad = True
    dtype = "torch.float32"

    def __dlpack__(self, **options: Any) -> Any:
        raise BufferError("Can't export tensors that require gradient, use tensor.detach()")

    def detach(self) -> Dlpack:
        return Dlpack(self.array)


class Bfloat16(Dlpack):
    """PyTorch's way: nothing that NumPy takes, but float() converts."""

    dtype = "torch.bfloat16"

    def __dlpack__(self, **options: Any) -> Any:
        raise BufferError("Unsupported dtype in DLTensor")

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        raise TypeError("Got unsupported ScalarType BFloat16")

    def float(self) -> Dlpack:
        return Dlpack(self.array)


class OnTheGpu(Dlpack):
    """PyTorch's way: __array__ refuses."""

    def __dlpack__(self, **options: Any) -> Any:
        raise AssertionError("the device is looked at first")

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


class CopiedFromTheGpu(OnTheGpu):
    """JAX's way: __array__ copies."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        return self.array


class OnlyDlpackOnTheGpu(Dlpack):
    def __dlpack_device__(self) -> tuple[int, int]:
        return (10, 0)


class Pinned(Dlpack):
    """Memory of the CPU that a GPU reads too."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return (3, 0)


class Strings(Array):
    """TensorFlow's way: exporting a tensor of strings ends the process."""

    dtype = "<dtype: 'string'>"

    def __dlpack__(self, **options: Any) -> Any:
        raise AssertionError("the type is looked at first")


@pytest.mark.parametrize(
    "make", [Dlpack, Array, Numpy, Gradient, Bfloat16, CopiedFromTheGpu, Pinned, np.ndarray.tolist]
)
def test_tensors(make: Callable[[NDArray[Any]], Any]) -> None:
    searcher = scann_ops.builder(make(DB), 10, "dot_product").score_brute_force().build()
    for found in (
        searcher.search_batched(make(QUERIES)),
        searcher.search_batched_parallel(make(QUERIES)),
    ):
        assert np.array_equal(found.indices, EXACT.indices)
        assert np.array_equal(found.distances, EXACT.distances)
    assert np.array_equal(searcher.search(make(QUERIES[0])).indices, EXACT.indices[0])


@pytest.mark.parametrize("make", [Dlpack, Array, Numpy, Gradient, Pinned])
def test_tensors_are_not_copied(make: Callable[[NDArray[Any]], Any]) -> None:
    assert np.shares_memory(vectors.as_database(make(DB)), DB)


@pytest.mark.parametrize(
    ("db", "error", "message"),
    [
        (OnTheGpu(DB), InvalidInputError, r"db, of type OnTheGpu, .* give its \.cpu\(\) instead"),
        (OnlyDlpackOnTheGpu(DB), InvalidInputError, "another device than the CPU"),
        (Strings(np.array([["a", "b"]], object)), DTypeError, "dtype object"),
        (Numpy(np.array([["a", "b"]])), DTypeError, "expected real numbers"),
        (Dlpack(DB + 1j), DTypeError, "dtype complex64"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_tensors_that_cannot_be_used(db: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        scann_ops.builder(db, 10, "dot_product")


# ---- The real libraries, where they are installed


def torch_tensors() -> dict[str, Callable[[NDArray[Any]], Any]]:
    torch = pytest.importorskip("torch")
    return {
        "float32": torch.tensor,
        "float64": lambda a: torch.tensor(a).double(),
        "gradient": lambda a: torch.tensor(a, requires_grad=True),
        "parameter": lambda a: torch.nn.Parameter(torch.tensor(a)),
        "strided": lambda a: torch.tensor(np.repeat(a, 2, -1))[..., ::2],
        "bfloat16": lambda a: torch.tensor(a).bfloat16(),
        "bfloat16 gradient": lambda a: torch.tensor(a).bfloat16().requires_grad_(),
        "float16": lambda a: torch.tensor(a).half(),
    }


def jax_tensors() -> dict[str, Callable[[NDArray[Any]], Any]]:
    numpy = pytest.importorskip("jax.numpy")
    return {
        "float32": numpy.asarray,
        "bfloat16": lambda a: numpy.asarray(a, numpy.bfloat16),
        "float16": lambda a: numpy.asarray(a, numpy.float16),
    }


def tensorflow_tensors() -> dict[str, Callable[[NDArray[Any]], Any]]:
    tf = pytest.importorskip("tensorflow")
    return {
        "float32": tf.constant,
        "variable": tf.Variable,
        "float64": lambda a: tf.cast(a, tf.float64),
        "bfloat16": lambda a: tf.cast(a, tf.bfloat16),
    }


@pytest.mark.parametrize("tensors", [torch_tensors, jax_tensors, tensorflow_tensors])
def test_real_tensors(tensors: Callable[[], dict[str, Callable[[NDArray[Any]], Any]]]) -> None:
    for name, make in tensors().items():
        searcher = scann_ops.builder(make(DB), 10, "dot_product").score_brute_force().build()
        found = searcher.search_batched(make(QUERIES))
        exact = (
            "32" in name or "64" in name or name in ("gradient", "parameter", "variable", "strided")
        )
        if exact:
            assert np.array_equal(found.indices, EXACT.indices), name
        np.testing.assert_allclose(
            found.distances, EXACT.distances, rtol=0, atol=1e-6 if exact else 0.1
        )
        one = searcher.search(make(QUERIES[0]))
        assert np.array_equal(one.indices, found.indices[0]), name


def test_real_tensors_that_cannot_be_used() -> None:
    torch = pytest.importorskip("torch")
    for bad in (torch.zeros(3, 4, device="meta"), torch.zeros(3, 4).to_sparse()):
        with pytest.raises(InvalidInputError, match="db, of type Tensor, cannot be read"):
            scann_ops.builder(bad, 10, "dot_product")
    if torch.cuda.is_available():
        with pytest.raises(InvalidInputError, match=r"give its \.cpu\(\) instead"):
            scann_ops.builder(torch.zeros(3, 4, device="cuda"), 10, "dot_product")


def test_a_real_tensor_of_strings() -> None:
    tf = pytest.importorskip("tensorflow")
    with pytest.raises(DTypeError):
        scann_ops.builder(tf.constant([["a"]]), 10, "dot_product")
