"""When swann's answer is worse than ScaNN's."""

from __future__ import annotations

from typing import Any

from benchmarks.parity.case import Case

MARGIN = 0.005  # of recall@10

DRAWS = 5
"""Builds whose mean recall counts where that of one is worse; see `in_doubt`."""

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


def in_doubt(case: Case, scann: Found, swann: Found) -> bool:
    """Whether nothing but one build's recall is worse.

    Trees of some dozens of leaves come out of random starts: with nothing but the order of the
    rows changed, recall of either library moves by up to .03 on the output embeddings of a language
    model, six times the margin. Such a case is built again from other orders, and means decide.
    """
    faults = worse(case, scann, swann)
    return bool(case.data and faults) and all(fault.startswith("recall ") for fault in faults)


def mean_of(draws: list[Found]) -> Found:
    """Return the first answer, with the mean recall of all; an error or a wrong answer counts."""
    for found in draws:
        if "error" in found or found["wrong"]:
            return found
    recalls = [found["recall"] for found in draws]
    says = f"mean of {len(recalls)} builds, {min(recalls):.4f} to {max(recalls):.4f}"
    first = draws[0]
    return first | {
        "recall": sum(recalls) / len(recalls),
        "says": f"{first['says']}; {says}" if first["says"] else says,
    }


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
