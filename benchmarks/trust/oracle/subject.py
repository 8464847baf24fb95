"""What the workers of the experiment try."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from random import Random

from benchmarks.trust.oracle.case import Case, Disagreement
from benchmarks.trust.oracle.settings import MEASURES
from benchmarks.trust.worker import Subject


class Oracle(Subject):
    """Case after case; the number of a case and the seed say everything of it."""

    allowed = dict.fromkeys(MEASURES, frozenset(("same",)))
    margin = 4 << 30

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        warnings.simplefilter("error")

    def run(self, number: int) -> tuple[str, str, str]:
        """Try a case."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        case = Case(Random(f"{self.seed}/{number}"), self.folder)
        try:
            case.run()
        except Disagreement as wrong:
            return case.lane, "different", f"{wrong} after {case.told}"
        except Exception as error:
            return case.lane, "untyped", f"{error!r} after {case.told}"
        return case.lane, "same", ""


def subject(argument: str, folder: Path, seed: int) -> Subject:
    """Return the subject."""
    return Oracle(folder, seed)
