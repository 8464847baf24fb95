"""When swann's answer is worse than ScaNN's."""

from __future__ import annotations

from typing import Any

from benchmarks.parity.case import Case

MARGIN = 0.005  # of recall@10

Found = dict[str, Any]
"""An `Answer` as a dictionary, or {"error": text} where the case raised or died."""


def worse(case: Case, scann: Found, swann: Found) -> list[str]:
    """Say what is worse about swann's answer; nothing where it is as good or better.

    It must never die, raise where the case catches nothing, or do what the case calls wrong,
    whatever ScaNN does; its shapes must be those of ScaNN where ScaNN is right; and its recall@10
    at most .005 below ScaNN's, or above it where the case says that ScaNN lacks something.
    """
    if "error" in swann:
        return [swann["error"]]
    faults = list(swann["wrong"])
    if "error" in scann:
        return faults
    if not scann["wrong"] and swann["shape"] != scann["shape"]:
        faults.append(f"shape {swann['shape']}; ScaNN's is {scann['shape']}")
    if scann["recall"] is not None and swann["recall"] is not None:
        gain = swann["recall"] - scann["recall"]
        if case.above and gain <= 0:
            faults.append(f"recall {gain:+.4f}; expected above ScaNN's")
        elif gain < -MARGIN:
            faults.append(f"recall {gain:+.4f}")
    return faults


def verdict(case: Case, scann: Found, swann: Found) -> str:
    """One word: ``WORSE``, ``better`` or ``same``."""
    if worse(case, scann, swann):
        return "WORSE"
    if "error" in scann or scann["wrong"]:
        return "better"
    if scann["recall"] is not None and swann["recall"] - scann["recall"] > MARGIN:
        return "better"
    return "same"


def text(found: Found) -> str:
    """Show an answer in one line."""
    if "error" in found:
        return str(found["error"])
    parts = [found["shape"], found["dtype"]]
    if found["recall"] is not None:
        parts.append(f"recall {found['recall']:.4f}")
    parts.append(found["says"])
    parts += [f"WRONG: {wrong}" for wrong in found["wrong"]]
    return ", ".join(part for part in parts if part)
