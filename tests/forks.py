"""Children by fork, for tests of what they may do with what their parent has open."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable

import pytest

FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def fork(function: Callable[[], object]) -> int:
    """Return the number of a child that calls a function; see `end_of`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: they are the point
        child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(20)
            function()
            status = 0
        finally:
            os._exit(status)
    return child


def end_of(child: int) -> int:
    """Wait for a child; 0 if its function returned."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
