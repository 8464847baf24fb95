"""What a case is, and what it may use: a library under one name, and data."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.parity.data import Cut

K = 10


class Lib:
    """ScaNN's names, from ScaNN or from swann.

    Attributes
    ----------
    name : str
        "scann" or "swann".
    ops : module
        Its ``scann_ops_pybind``.
    ReorderType, IncrementalMode : enum
        As ScaNN spells them.
    """

    def __init__(self, name: str) -> None:
        top = importlib.import_module(name)
        self.name = name
        self.ops: Any = top.scann_ops_pybind
        self.ReorderType: Any = top.ReorderType
        modes = "scann.scann_ops.py.scann_builder" if name == "scann" else name
        self.IncrementalMode: Any = importlib.import_module(modes).IncrementalMode

    def builder(self, db: Any, measure: str, k: int = K) -> Any:
        """Start building; ScaNN, which has no cosine, gets the dot product of its unit rows."""
        if measure == "cosine" and self.name == "scann":
            measure = "dot_product"
        return self.ops.builder(db, k, measure)


@dataclasses.dataclass
class Answer:
    """What a case saw.

    Attributes
    ----------
    shape, dtype : str
        Of the arrays a search returned.
    recall : float, optional
        Recall@10.
    says : str
        Anything else worth showing.
    wrong : list of str
        What no library should do: an answer with any of it is a wrong one.
    """

    shape: str = ""
    dtype: str = ""
    recall: float | None = None
    says: str = ""
    wrong: list[str] = dataclasses.field(default_factory=list)

    def check(self, right: Any, otherwise: str) -> Answer:
        """Note what is wrong unless `right`."""
        if not right:
            self.wrong.append(otherwise)
        return self

    def refused(self, what: str, call: Callable[[], Any], *kinds: type[Exception]) -> Answer:
        """Call something that must be refused, by an error of one of these kinds.

        ValueError unless told; RuntimeError, which ScaNN's native code raises, does too.
        """
        try:
            call()
        except Exception as error:
            self.says += f"{'; ' if self.says else ''}{what}: {short(error)}"
            fit = isinstance(error, (RuntimeError, *(kinds or (ValueError,))))
            self.check(fit, f"{what} raises a stray error")
        else:
            self.wrong.append(f"{what} is accepted in silence")
        return self


@dataclasses.dataclass(frozen=True)
class Case:
    """A part of the program.

    Attributes
    ----------
    name : str
        Its topic and what it shows, as ``"updates/delete-twice"``.
    run : callable
        ``run(lib, cut)`` returns an `Answer`; `cut` is None unless `data` names one.
    data : str
        The data set it needs, if any.
    above : bool
        ScaNN lacks something here: recall must be above its own.
    deadly : bool
        It may harm its process: nothing else runs in it.
    quick : bool
        Whether the quick run includes it.
    """

    name: str
    run: Callable[[Lib, Any], Answer]
    data: str = ""
    above: bool = False
    deadly: bool = False
    quick: bool = True


def short(error: BaseException) -> str:
    """Kind and first line of an error, cut to what fits a table."""
    lines = str(error).strip().splitlines() or [""]
    text = f"{type(error).__name__}: {lines[0]}"
    return text if len(text) <= 90 else text[:87] + "..."


def shape(result: Sequence[Any]) -> str:
    """Shape of the ids a search returned; those of docids are lists."""
    return "x".join(str(size) for size in np.shape(result[0]))


def dtypes(result: Sequence[Any]) -> str:
    """Dtypes of ids and distances."""
    first = result[0]
    ids = str(first.dtype) if isinstance(first, np.ndarray) else "docids"
    return f"{ids}/{np.asarray(result[1]).dtype}"


def answer(result: Sequence[Any], **more: Any) -> Answer:
    """Make an answer of what a search returned."""
    return Answer(shape(result), dtypes(result), **more)


def recall(found: Any, true: npt.NDArray[Any], k: int = K) -> float:
    """Share of the k true neighbors of each query that are among the ids found."""
    pairs: Iterable[tuple[Any, Any]] = zip(found, true[:, :k], strict=True)
    return float(np.mean([len(set(map(int, a)) & set(b.tolist())) / k for a, b in pairs]))


def searched(searcher: Any, cut: Cut, **limits: Any) -> Answer:
    """Ask all queries of a cut in one batch; see that nothing in the answer is impossible."""
    result = searcher.search_batched(cut.queries, **limits)
    seen = answer(result, recall=recall(result[0], cut.true))
    seen.check(np.isfinite(result[1]).all(), "a distance is not finite")
    seen.check(not repeats(result[0]), "a datapoint is found twice by one query")
    return seen


def repeats(ids: Any) -> int:
    """Rows of answers that name a datapoint twice."""
    return sum(len(set(row)) < len(row) for row in np.asarray(ids).tolist())
