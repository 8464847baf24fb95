"""Arrays and checks for the tests of what the native module refuses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

# The place of an argument (or several places), what it must not be, and what is said then.
Refusals = Sequence[tuple[int | tuple[int, ...], Any, str]]


def f32(*shape: int) -> NDArray[np.float32]:
    return np.ones(shape, np.float32)


def f64(*shape: int) -> NDArray[np.float64]:
    return np.ones(shape)


def u8(*shape: int) -> NDArray[np.uint8]:
    return np.zeros(shape, np.uint8)


def u16(*shape: int) -> NDArray[np.uint16]:
    return np.zeros(shape, np.uint16)


def i8(*shape: int) -> NDArray[np.int8]:
    return np.zeros(shape, np.int8)


def i64(*shape: int) -> NDArray[np.int64]:
    return np.zeros(shape, np.int64)


def u64(*shape: int) -> NDArray[np.uint64]:
    return np.zeros(shape, np.uint64)


def u32(*values: int) -> NDArray[np.uint32]:
    return np.array(values, np.uint32)


def zeros(*shape: int) -> NDArray[np.uint32]:
    return np.zeros(shape, np.uint32)


def refuses(call: Callable[..., Any], good: tuple[Any, ...], bad: Refusals) -> None:
    """The call works, and with one argument changed it does not."""
    call(*good)
    for places, values, words in bad:
        changed = list(good)
        if isinstance(places, int):
            changed[places] = values
        else:
            for place, value in zip(places, values, strict=True):
                changed[place] = value
        with pytest.raises(ValueError, match="native call: .*" + words):
            call(*changed)
    call(*good)
