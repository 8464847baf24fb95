"""The Keras layer, on the backend that KERAS_BACKEND names: `make test-keras`.

Among them the tests that keras-rs has of its brute-force layer, restated.
"""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import swann

keras = pytest.importorskip("keras")
keras_rs = pytest.importorskip("keras_rs")

from swann.integrations.keras_rs import ApproximateRetrieval  # noqa: E402

# Keras's own variables lack a keyword that NumPy 2 asks for.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

BACKEND = keras.backend.backend()
RNG = np.random.default_rng(0)
CANDIDATES = RNG.standard_normal((5000, 16), dtype=np.float32)
IDS = RNG.permutation(5000).astype(np.int32) + 3
QUERIES = RNG.standard_normal((6, 16), dtype=np.float32)

CODES = swann.IndexConfig(
    num_neighbors=10,
    distance_measure="dot_product",
    tree=swann.TreeConfig(num_leaves=50, num_leaves_to_search=50),
    score=swann.AHConfig(dimensions_per_block=2),
    reorder=swann.ReorderConfig(reordering_num_neighbors=2000),
)

tensor, numpy = keras.ops.convert_to_tensor, keras.ops.convert_to_numpy


def layers(**kwargs: Any) -> tuple[Any, Any]:
    """The brute-force layer, and ours with an index that finds nearly everything."""
    given = {"candidate_embeddings": tensor(CANDIDATES), "candidate_ids": tensor(IDS), **kwargs}
    return keras_rs.layers.BruteForceRetrieval(**given), ApproximateRetrieval(**given, config=CODES)


def same(found: Any, expected: Any) -> None:
    """Both are the same tensors: of one kind, dtype and shape, and of equal values."""
    assert type(found) is type(expected)
    if isinstance(found, (tuple, list)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            same(one, other)
        return
    assert found.dtype == expected.dtype
    assert tuple(found.shape) == tuple(expected.shape)
    np.testing.assert_allclose(numpy(found), numpy(expected), rtol=0, atol=1e-4)


# ---- Tests of keras-rs, restated


@pytest.mark.parametrize("config", [None, CODES], ids=["autopilot", "codes"])
@pytest.mark.parametrize("has_identifiers", [True, False])
@pytest.mark.parametrize("return_scores", [True, False])
def test_retrieval(has_identifiers: bool, return_scores: bool, config: Any) -> None:
    rng = keras.random.SeedGenerator(42)
    candidates = keras.random.normal((100, 4), dtype="float32", seed=rng)
    ids = keras.ops.arange(3, 103, dtype="int32") if has_identifiers else None
    layer = ApproximateRetrieval(
        candidate_embeddings=candidates,
        candidate_ids=ids,
        k=20,
        return_scores=return_scores,
        config=config,
    )
    query = keras.random.normal((16, 4), dtype="float32", seed=rng)
    scores = keras.ops.matmul(query, keras.ops.transpose(candidates))
    top = keras.ops.argsort(-scores, axis=1)[:, :20]
    top_scores = keras.ops.take_along_axis(scores, top, 1)
    if has_identifiers:
        top = keras.ops.take(ids, top, axis=0)
    for update in (False, True):
        if update:
            layer.update_candidates(candidates, ids)
        if return_scores:
            found_scores, found = layer(query)
            assert found_scores.shape == top_scores.shape
            np.testing.assert_allclose(numpy(found_scores), numpy(top_scores), atol=1e-4)
        else:
            found = layer(query)
        assert found.shape == top.shape
        assert np.array_equal(numpy(found), numpy(top))


@pytest.mark.parametrize("return_scores", [True, False])
def test_serialization(return_scores: bool) -> None:
    layer = ApproximateRetrieval(k=5, return_scores=return_scores, config=CODES, leaves_to_search=9)
    restored = keras.layers.deserialize(keras.layers.serialize(layer))
    assert layer.get_config() == restored.get_config()
    assert (restored.k, restored.return_scores) == (5, return_scores)
    assert (restored.config, restored.leaves_to_search) == (CODES, 9)
    with pytest.raises(swann.ConfigError, match="call update_candidates first"):
        restored(tensor(QUERIES))
    restored.update_candidates(tensor(CANDIDATES[:10]))
    found = restored(tensor(QUERIES))
    for result in found if return_scores else (found,):
        assert tuple(result.shape) == (6, 5)


@pytest.mark.parametrize(
    ("embeddings", "ids", "message"),
    [
        (None, None, "candidate_embeddings is None"),
        ((10,), None, "candidate_embeddings has 1 axes"),
        ((3, 10), None, "candidate_embeddings has 3 rows"),
        ((6, 10), (4,), "candidate_ids has shape"),
    ],
)
def test_bad_candidates(embeddings: Any, ids: Any, message: str) -> None:
    given = None if embeddings is None else keras.random.normal(embeddings)
    numbers = None if ids is None else keras.random.randint(ids, 0, 3)
    with pytest.raises(ValueError, match=message):
        ApproximateRetrieval(k=5).update_candidates(given, numbers)


@pytest.mark.parametrize(
    ("queries", "message"), [(np.full((2, 16), np.nan), "nan"), (np.zeros((2, 15)), "expects 16")]
)
def test_bad_queries(queries: Any, message: str) -> None:
    layer = ApproximateRetrieval(tensor(CANDIDATES), config=CODES)
    with pytest.raises(swann.InvalidInputError, match=message):
        layer(tensor(queries))


def test_it_is_a_retrieval_layer_of_keras_rs() -> None:
    assert isinstance(ApproximateRetrieval(), keras_rs.layers.Retrieval)
    with pytest.raises(ValueError, match="without candidate_embeddings"):
        ApproximateRetrieval(candidate_ids=tensor(IDS))


# ---- Beside the brute-force layer


@pytest.mark.parametrize("shape", [(16,), (1, 16), (6, 16), (2, 3, 16)])
def test_results_have_the_form_of_the_brute_force_layer(shape: tuple[int, ...]) -> None:
    brute_force, layer = layers()
    query = tensor(RNG.standard_normal(shape, dtype=np.float32))
    expected = brute_force(query)
    same(tuple(layer(query)), tuple(expected))


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_other_precisions(dtype: str) -> None:
    brute_force, layer = layers(dtype=dtype)
    scores, ids = layer(tensor(QUERIES))
    expected, _ = brute_force(tensor(QUERIES))
    assert (scores.dtype, tuple(ids.shape)) == (expected.dtype, (6, 10))
    found, wanted = (numpy(keras.ops.cast(s, "float32")) for s in (scores, expected))
    # The brute-force layer rounds its queries and candidates, too; bfloat16 has 8 bits.
    np.testing.assert_allclose(found, wanted, atol=0.1, rtol=2**-7)


def compiled(function: Any) -> Any:
    if BACKEND == "jax":
        import jax

        return jax.jit(function)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    import torch

    return torch.compile(function, backend="eager")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_inside_compiled_functions() -> None:
    brute_force, layer = layers()
    function = compiled(lambda query: tuple(layer(query)))
    same(function(tensor(QUERIES)), tuple(brute_force(tensor(QUERIES))))
    many = tensor(np.tile(QUERIES, (500, 1)))
    same(function(many), tuple(layer(many)))
    # What was compiled uses new candidates.
    layer.update_candidates(tensor(CANDIDATES[:50]), tensor(IDS[:50]))
    assert np.isin(numpy(function(tensor(QUERIES))[1]), IDS[:50]).all()


def test_unknown_batch_size() -> None:
    if BACKEND != "tensorflow":
        pytest.skip("a graph of TensorFlow has such shapes")
    import tensorflow as tf

    _, layer = layers()
    graph = tf.function(layer, input_signature=[tf.TensorSpec((None, 16))])
    scores, _ = graph.get_concrete_function().output_shapes
    assert scores.as_list() == [None, 10]
    same(tuple(graph(tensor(QUERIES))), tuple(layer(tensor(QUERIES))))


def test_transformations_of_jax() -> None:
    if BACKEND != "jax":
        pytest.skip("of JAX only")
    import jax

    _, layer = layers()
    queries = tensor(QUERIES)
    same(tuple(jax.vmap(lambda query: tuple(layer(query)))(queries)), tuple(layer(queries)))
    gradient = jax.grad(lambda query: layer(query)[0].sum() + query.sum())(queries)
    assert (numpy(gradient) == 1).all()


def test_no_gradient_is_asked_of_torch() -> None:
    if BACKEND != "torch":
        pytest.skip("of PyTorch only")
    import torch

    _, layer = layers()
    query = torch.tensor(QUERIES, requires_grad=True)
    scores, _ = layer(query)
    assert not scores.requires_grad
    same(scores, layer(tensor(QUERIES))[0])


# ---- Candidates


def variable(array: Any) -> Any:
    return keras.Variable(array, trainable=False)


@pytest.mark.parametrize("kind", [tensor, variable, np.asarray])
def test_what_candidates_may_be(kind: Any) -> None:
    layer = ApproximateRetrieval(kind(CANDIDATES), kind(IDS), config=CODES)
    same(tuple(layer(tensor(QUERIES))), tuple(layers()[0](tensor(QUERIES))))


def test_updates() -> None:
    _, layer = layers()
    before = numpy(layer(tensor(QUERIES))[1])
    # As in the brute-force layer, ids stay where no new ones are given.
    layer.update_candidates(tensor(CANDIDATES))
    assert np.array_equal(numpy(layer(tensor(QUERIES))[1]), before)
    with pytest.raises(ValueError, match="candidate_ids has shape"):
        layer.update_candidates(tensor(CANDIDATES[:100]))
    assert np.array_equal(numpy(layer(tensor(QUERIES))[1]), before)
    layer.update_candidates(tensor(CANDIDATES[:100]), tensor(IDS[:100]))
    assert np.isin(numpy(layer(tensor(QUERIES))[1]), IDS[:100]).all()


def test_sample_queries_and_search_settings() -> None:
    layer = ApproximateRetrieval(
        tensor(CANDIDATES), target_recall=0.8, sample_queries=tensor(QUERIES)
    )
    assert layer.searcher.config.autopilot.target_recall == 0.8
    _, layer = layers()
    best = numpy(layer(tensor(QUERIES))[0])
    layer.leaves_to_search = 1
    assert (numpy(layer(tensor(QUERIES))[0]) < best - 1e-3).any()


def test_models(tmp_path: Path) -> None:
    _, layer = layers()
    model = keras.Sequential([keras.layers.Input((16,)), keras.layers.Dense(16), layer])
    assert [tuple(output.shape) for output in model.outputs] == [(None, 10), (None, 10)]
    found = model.predict(QUERIES, verbose=0)
    embeddings = numpy(model.layers[0](tensor(QUERIES)))
    same(tuple(tensor(result) for result in found), tuple(layer(tensor(embeddings))))
    # The candidates are in the archive; weights are saved and loaded without them.
    path = tmp_path / "model.keras"
    model.save(path)
    opened = keras.models.load_model(path)
    assert opened.layers[-1].searcher is not layer.searcher
    for one, other in zip(opened.predict(QUERIES, verbose=0), found, strict=True):
        assert np.array_equal(one, other)
    model.save_weights(tmp_path / "model.weights.h5")
    model.load_weights(tmp_path / "model.weights.h5")
    assert len(layer.weights) == 0
    assert len(layer.searcher) == 5000


def test_a_model_without_candidates_is_saved_too(tmp_path: Path) -> None:
    model = keras.Sequential([keras.layers.Input((16,)), ApproximateRetrieval(k=3)])
    model.save(tmp_path / "model.keras")
    layer = keras.models.load_model(tmp_path / "model.keras").layers[-1]
    assert (layer.k, layer.searcher) == (3, None)


def test_copies() -> None:
    _, layer = layers()
    copied = copy.copy(layer)
    copied.update_candidates(tensor(CANDIDATES[:50]), tensor(IDS[:50]))
    assert len(layer.searcher) == 5000


# ---- ScaNN's names, as the Keras-RS tutorial uses them


def test_scann_ops_in_the_tutorial() -> None:
    from swann import scann_ops

    builder = scann_ops.builder(
        db=tensor(CANDIDATES), num_neighbors=10, distance_measure="dot_product"
    )
    builder = builder.tree(num_leaves=50, num_leaves_to_search=50, training_iterations=12)
    builder = builder.score_ah(dimensions_per_block=2)
    searcher = builder.reorder(500).build(shared_name="a name")
    found = searcher.search_batched_parallel(tensor(QUERIES), final_num_neighbors=10).indices
    expected = np.argsort(-(QUERIES @ CANDIDATES.T), axis=1)[:, :10]
    assert np.array_equal(found.numpy(), expected)
    embedding = keras.layers.Embedding(5000, 16)
    embedding.build()
    variable = (
        scann_ops.builder(embedding.embeddings, 10, "dot_product").score_brute_force().build()
    )
    assert len(variable) == 5000


def test_the_example(tmp_path: Path) -> None:
    ratings = RNG.integers(0, [60, 200, 11], (4000, 3))
    lines = [f'"u{user}";"b{book}";"{rating}"' for user, book, rating in ratings]
    path = tmp_path / "ratings.csv"
    path.write_text("\n".join(['"User-ID";"ISBN";"Book-Rating"', *lines]))
    example = Path(__file__).resolve().parents[1] / "examples" / "keras_retrieval.py"
    done = subprocess.run(
        [sys.executable, example, "--quick", "--ratings", path],
        check=True, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    recalls = [
        float(line.split()[-1])
        for line in done.stdout.splitlines()
        if line.startswith(("BruteForce", "scann_ops", "Approximate"))
    ]
    assert len(recalls) == 10
    assert recalls[0] == recalls[5] == 1
    assert min(recalls) > 0.9
