"""The table of both answers."""

from __future__ import annotations

from benchmarks.parity.case import Case
from benchmarks.parity.verdict import Found, text, verdict, worse

Row = tuple[Case, Found, Found]


def failed(rows: list[Row]) -> list[Case]:
    """Cases in which swann is worse."""
    return [case for case, scann, swann in rows if worse(case, scann, swann)]


def summary(rows: list[Row]) -> str:
    """One line of counts."""
    verdicts = [verdict(*row) for row in rows]
    counts = {word: verdicts.count(word) for word in ("same", "better", "WORSE")}
    return f"{len(rows)} cases: " + ", ".join(f"{n} {word}" for word, n in counts.items())


def markdown(rows: list[Row]) -> str:
    """Return the whole table as a page."""
    lines = [
        "# ScaNN and swann, case by case",
        "",
        summary(rows),
        "",
        "| case | scann | swann | swann is |",
        "|---|---|---|---|",
    ]
    for case, scann, swann in rows:
        faults = worse(case, scann, swann)
        says = f"**WORSE**: {'; '.join(faults)}" if faults else verdict(case, scann, swann)
        cells = [case.name, text(scann), text(swann), says]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def terminal(rows: list[Row]) -> str:
    """Return the table as blocks of lines, for terminals of any width; failures once more."""
    lines = []
    for case, scann, swann in rows:
        lines += [
            f"{verdict(case, scann, swann):7}{case.name}",
            f"         scann  {text(scann)}",
            f"         swann  {text(swann)}",
        ]
    for case, scann, swann in rows:
        lines += [f"WORSE  {case.name}: {fault}" for fault in worse(case, scann, swann)]
    return "\n".join([*lines, summary(rows)])
