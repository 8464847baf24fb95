"""A case: an index of random settings over random data, and a model of what is in it."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

import swann
from benchmarks.trust.oracle.data import F32, vectors
from benchmarks.trust.oracle.settings import MEASURES, draw_builder
from benchmarks.trust.oracle.truth import Truth, rounded_well, unit
from swann import AHConfig, InvalidInputError, SearchResult

_ALL = 10**9  # leaves
_SINGLE = 5  # queries that are searched one by one, too


class Disagreement(AssertionError):
    """An answer is not what it must be."""


def draw_size(rng: Random) -> tuple[int, int]:
    """Return numbers of datapoints and of dimensions: mostly small, sometimes larger."""
    n = rng.choices(
        (0, rng.randint(1, 40), rng.randint(41, 300), rng.randint(301, 1500), 4000),
        (3, 53, 40, 3.8, 0.2),
    )[0]
    d = rng.choices(
        (rng.randint(1, 8), rng.randint(9, 40), rng.randint(41, 128), rng.randint(129, 300)),
        (40, 45, 12, 3),
    )[0]
    return n, d


class Case:
    """Everything is drawn from `rng`; `run` raises what is wrong, `told` says what was done.

    Parameters
    ----------
    rng : Random
        Draws everything.
    folder : path
        An empty directory.
    """

    def __init__(self, rng: Random, folder: Path) -> None:
        self.rng, self.folder = rng, folder
        self.told: list[str] = []
        self.measure = rng.choice(MEASURES)
        self.lane = self.measure
        self.n, self.d = draw_size(rng)
        self.docids = rng.choice(("none", "none", "int", "str"))
        self.model: dict[Any, NDArray[np.float64]] = {}  # in the order that they came
        self.following = 0  # the next row id, or name
        self.fresh = True  # nothing was changed since the index was built

    def run(self) -> None:
        """Build, search, change and search again."""
        rng = self.rng
        given, exact = self.draw(self.n)
        k = rng.choice((1, 5, rng.randint(1, 2 * self.n + 2)))
        builder = draw_builder(rng, given, self.n, self.d, k, self.measure)
        self.told.append(repr(builder))
        docids = self.put(None, exact)
        self.searcher = builder.build(docids=None if self.docids == "none" else docids)
        self.searcher.num_threads = rng.randint(1, 4)
        if rng.random() < 0.7:
            self.check()
        changes = (self.insert, self.replace, self.delete, self.rebalance, self.keep)
        for change in rng.choices(changes, (5, 3, 4, 1.5, 2), k=rng.choice((0, 0, 1, 2, 6))):
            self.told.append(change.__name__)
            change()
        self.check()

    # ---- What is in the index

    def draw(self, n: int) -> tuple[Any, F32]:
        """Return vectors as they are given, and in float32."""
        given, exact, told = vectors(self.rng, n, self.d, zeros=self.measure != "cosine")
        self.told.append(f"{n} x {self.d} of {told}")
        return given, exact

    def put(self, keys: list[Any] | None, exact: F32) -> list[Any]:
        """Note down rows of `keys`, or of new ones; return these."""
        if keys is None:
            numbers = range(self.following, self.following + len(exact))
            self.following += len(exact)
            keys = [f"ä{i}" if self.docids == "str" else i for i in numbers]
            if self.docids == "int":
                keys = [(i * 0x9E3779B97F4A7C15) % 2**63 for i in numbers]
        rows = exact.astype(np.float64)
        self.model |= zip(keys, unit(rows) if self.measure == "cosine" else rows, strict=True)
        return keys

    def keys(self) -> list[Any]:
        """Return what is in the index, in the order of its numbers."""
        return sorted(self.model) if self.docids == "none" else list(self.model)

    def kept(self) -> F32:
        """Return the vectors as the index has them."""
        return self.searcher._live.vectors(self.searcher._live.numbers())

    def precision(self) -> str:
        """Return that of the rows that are scored one by one; nothing if there are none."""
        config = self.searcher._index.config
        if not isinstance(config.score, AHConfig):
            return config.score.quantize.name
        return "" if config.reorder is None else config.reorder.quantize.name

    # ---- Changes

    def some(self) -> list[Any]:
        """Return some of the keys."""
        return self.rng.sample(self.keys(), self.rng.randint(0, min(len(self.model), 40)))

    def insert(self) -> None:
        """Insert new datapoints."""
        given, exact = self.draw(self.rng.choice((0, 1, 1, 5, 80, 200)))
        self.fresh = False
        keys = self.put(None, exact)
        made = self.searcher.upsert(None if self.docids == "none" else keys, given)
        self.expect(made.tolist() == keys, f"upsert returned {made.tolist()}")

    def replace(self) -> None:
        """Give some datapoints new vectors."""
        keys = self.some()
        given, exact = self.draw(len(keys))
        self.fresh = False
        self.put(keys, exact)
        self.searcher.upsert(keys, given)

    def delete(self) -> None:
        """Remove some datapoints, or all."""
        keys = self.keys() if self.rng.random() < 0.1 else self.some()
        self.fresh = False
        self.searcher.delete(keys)
        for key in keys:
            del self.model[key]

    def rebalance(self) -> None:
        """Build anew, if what is kept allows it."""
        before = self.kept()
        try:
            self.searcher.rebalance()
        except InvalidInputError:
            # Codes may stand for zeros, or for more than is allowed.
            lengths = np.linalg.norm(before.astype(np.float64), axis=1)
            exact = self.precision() == "FLOAT32"
            bad = (lengths > 1e18) | ((lengths == 0) & (self.measure == "cosine"))
            self.expect(not exact and bool(bad.any()), "rebalance refused good rows")
            return
        if self.precision():  # rows are rounded once more
            rows = before.astype(np.float64)
            self.model = dict(zip(self.keys(), rows, strict=True))
            if self.measure == "cosine":
                self.model = dict(zip(self.keys(), unit(rows), strict=True))
            self.check_rows()
            self.model = dict(zip(self.keys(), self.kept().astype(np.float64), strict=True))
        self.fresh = False

    def keep(self) -> None:
        """Go on with what was saved, pickled or copied: it answers the same."""
        how = self.rng.choice(("directory", "file", "pickle", "copy"))
        queries = self.queries()
        old = self.searcher
        if how == "copy":
            self.searcher = copy.deepcopy(old)
        elif how == "pickle":
            self.searcher = pickle.loads(pickle.dumps(old))
        else:
            path = self.folder / ("index.swann" if how == "file" else "index")
            old.save(path)
            self.searcher = swann.load(path, verify=self.rng.choice(("full", "manifest")))
            self.searcher.num_threads = 2
        # Changes were folded in. Before, rows lay elsewhere, and ties are cut by row.
        same(old.search_batched(queries, 9), self.searcher.search_batched(queries, 9), how)

    # ---- Answers

    def expect(self, right: bool, what: str) -> None:
        """Raise unless something is right."""
        if not right:
            raise Disagreement(what)

    def queries(self) -> Any:
        """Return some queries: drawn like datapoints, some of them datapoints."""
        count = self.rng.choice((0, 1, 3, 6, 12, 40))
        given, exact = self.draw(count)
        if count and self.model and self.rng.random() < 0.4:
            rows = [self.model[key] for key in self.rng.choices(self.keys(), k=count)]
            return np.array(rows, np.float32)
        return given if count and self.rng.random() < 0.3 else exact

    def check(self) -> None:
        """Search everything, then less, and compare."""
        rng, n = self.rng, len(self.model)
        self.expect(len(self.searcher) == n, f"{len(self.searcher)} datapoints, not {n}")
        if self.docids != "none":
            self.expect(self.searcher.docids == self.keys(), "docids are others")
        queries = self.queries()
        exact = np.array(queries, np.float32).reshape(-1, self.d)
        k = rng.choice((1, 3, 10, rng.randint(1, n + 5), n + 3))
        self.told.append(f"k={k}")
        everything = self.search(queries, exact, k, 4 * n + 8, _ALL)
        self.check_found(everything, [min(k, n)] * len(exact))
        limits = rng.randint(1, n + 5), rng.randint(1, 20)
        less = self.search(queries, exact, k, *limits)
        self.check_found(less, None)
        if self.precision():
            self.check_rows()
            truth = Truth(self.kept(), exact, self.measure, self.precision() == "INT8")
            places = self.places(everything)
            self.expect(not (told := truth.distances_are_true(places, everything)), told)
            self.expect(not (told := truth.none_is_better(places)), told)
            told = truth.distances_are_true(self.places(less), less)
            self.expect(not told, f"{limits}: {told}")
            if self.docids == "none":
                self.check_ties(everything)

    def search(self, given: Any, exact: F32, k: int, candidates: int, leaves: int) -> SearchResult:
        """Search in all ways, which must agree bit for bit."""
        s = self.searcher
        found = s.search_batched(given, k, candidates, leaves)
        same(found, s.search_batched_parallel(exact, k, candidates, leaves), "parallel")
        some = range(len(exact))
        for i in self.rng.sample(some, min(len(exact), _SINGLE)):
            one = s.search(exact[i], k, candidates, leaves)
            same(SearchResult(found.indices[i], found.distances[i]), one, f"query {i} alone")
        return found

    def check_found(self, found: SearchResult, counts: list[int] | None) -> None:
        """Look for what cannot be, whatever was searched."""
        ids, distances = found
        none = np.asarray(ids == nothing_of(found), bool)
        absent = np.isnan(distances)
        self.expect(np.array_equal(none, absent), f"NaN not where no id is: {found}")
        self.expect(bool((none[:, 1:] >= none[:, :-1]).all()), f"gaps: {found}")
        number = (~none).sum(axis=1).tolist()
        self.expect(counts is None or number == counts, f"{number} found, not {counts}")
        self.expect(self.model.keys() >= set(ids[~none].tolist()), f"unknown ones: {found}")
        twice = [i for i, n in enumerate(number) if len(set(ids[i, :n].tolist())) < n]
        self.expect(not twice, f"twice in {twice}: {found}")
        self.expect(bool(np.isfinite(distances[~none]).all()), f"infinite: {found}")
        before, after = distances[:, :-1], distances[:, 1:]
        wrong = before > after if self.measure == "squared_l2" else before < after
        self.expect(not wrong.any(), f"not in order: {found}")

    def check_rows(self) -> None:
        """Compare the rows that are kept with those that were given."""
        kept, keys = self.kept(), self.keys()
        self.expect(kept.shape == (len(keys), self.d), f"{kept.shape} of {len(keys)} rows are kept")
        if not keys:
            return
        config = self.searcher._index.config
        nearest = config.reorder is None or np.isnan(
            config.reorder.anisotropic_quantization_threshold
        )
        rows = np.array([self.model[key] for key in keys])
        told = rounded_well(kept, rows, self.precision(), 1 if nearest else 2)
        self.expect(not told, told)

    def places(self, found: SearchResult) -> list[NDArray[np.int64]]:
        """Return where in `keys` the answers are."""
        at = {key: i for i, key in enumerate(self.keys())}
        counts = (~np.isnan(found.distances)).sum(axis=1).tolist()
        return [
            np.array([at[key] for key in ids[:count].tolist()], np.int64)
            for ids, count in zip(found.indices, counts, strict=True)
        ]

    def check_ties(self, found: SearchResult) -> None:
        """Of equal distances the lowest row id comes first; of equal rows none is left out."""
        numbers = np.array(self.keys(), np.int64)
        kept = self.kept() if self.fresh else None
        for ids, distances in zip(found.indices, found.distances, strict=True):
            ids = ids[ids >= 0]
            ties = np.diff(distances[: len(ids)]) == 0
            self.expect(bool((np.diff(ids)[ties] > 0).all()), f"ties: {ids.tolist()}")
            if kept is None or not len(ids):
                continue
            last = kept[np.searchsorted(numbers, ids[-1])]
            twins = numbers[(kept == last).all(axis=1)]
            left = twins[~np.isin(twins, ids)]
            self.expect(not (left < ids[-1]).any(), f"{ids[-1]} was found, its twins {left} not")


def nothing_of(found: SearchResult) -> Any:
    """Return what stands for no datapoint."""
    return None if found.indices.dtype == object else -1


def same(a: SearchResult, b: SearchResult, what: str) -> None:
    """Raise unless two results are alike, bit for bit."""
    alike = a.indices.shape == b.indices.shape and a.indices.tolist() == b.indices.tolist()
    if not alike or a.distances.tobytes() != b.distances.tobytes():
        raise Disagreement(f"{what}: {a} and {b}")
