"""Interrupts (Ctrl-C) before a line that a test names."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def interrupted(
    call: Callable[[], object],
    line: int,
    follows: Callable[[FrameType], bool],
    counts: Callable[[FrameType], bool],
) -> bool:
    """Run `call` with an interrupt before a line of this thread; return whether it came.

    It comes before the `line`-th of those that count, in the frames that are followed.
    """
    passed = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal passed
        if not follows(frame):
            return None
        if event == "line" and counts(frame):
            passed += 1
            if passed == line:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False
