"""The process a library runs in: ``python -m benchmarks.parity.worker LIB NAME=FOLDER...``.

Reads a line of two words from standard input, which order of the rows and the name of a case, and
answers with a line of JSON. Only NumPy and the library are imported here.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import traceback
from pathlib import Path
from typing import TextIO

from benchmarks.parity import data
from benchmarks.parity.case import Case, Lib, short
from benchmarks.parity.cases import CASES


def serve(lib: Lib, folders: dict[str, Path], answers: TextIO) -> None:
    """Answer until standard input ends."""
    by_name = {case.name: case for case in CASES}
    cuts: dict[str, data.Cut] = {}
    for line in sys.stdin:
        draw, _, name = line.strip().partition(" ")
        case = by_name[name]
        if case.data and case.data not in cuts:
            cuts = {case.data: data.load(case.data, folders[case.data])}
        cut = data.reordered(cuts[case.data], int(draw)) if case.data else None
        answers.write(json.dumps(_run(case, lib, cut)) + "\n")
        answers.flush()


def _run(case: Case, lib: Lib, cut: data.Cut | None) -> dict[str, object]:
    try:
        return dataclasses.asdict(case.run(lib, cut))
    except Exception as error:
        traceback.print_exc()
        return {"error": short(error)}


def main() -> None:
    """Serve the library named by the arguments."""
    name, *pairs = sys.argv[1:]
    # Libraries print as they like: their standard output becomes standard error.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    folders = {key: Path(folder) for key, _, folder in (pair.partition("=") for pair in pairs)}
    serve(Lib(name), folders, answers)


if __name__ == "__main__":
    main()
