"""Other libraries' tensors as NumPy arrays, without importing any of them.

In this order: DLPack, which shares memory and which JAX, PyTorch, CuPy and others speak;
``__array__``; ``numpy()``, which is TensorFlow's. What differs from the libraries' own ways:

- A tensor that requires a gradient is read as it is: no gradient flows through a search.
- bfloat16 is read, though NumPy has no such type. Where the library brings one (JAX, TensorFlow),
  it is converted in chunks like any other; PyTorch does not, and a whole float32 copy is made.
- A tensor on another device is refused, with a hint, unless its library copies it to the CPU
  by itself, as JAX and TensorFlow do.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["is_bfloat16", "to_numpy"]

# DLPack's numbers of the devices whose memory the CPU can read: its own, and that which CUDA and
# ROCm share with it.
_CPU_DEVICES = (1, 3, 11, 13)

# What libraries call the types that both DLPack and NumPy know: "torch.int8", "<dtype: 'float32'>".
_NUMBERS = re.compile(r"\b(u?int(8|16|32|64)|float(16|32|64))\b")


def to_numpy(given: Any) -> NDArray[Any]:
    """Return a tensor of any library, or anything else that NumPy takes, as an ndarray.

    Parameters
    ----------
    given : object
        What the user gave.

    Returns
    -------
    ndarray
        The same memory where that can be had; of any dtype, object among them.

    Raises
    ------
    Exception
        Whatever the library raises, where none of the ways works.
    """
    if isinstance(given, np.ndarray):
        return np.asarray(given)
    if getattr(given, "requires_grad", False) is True:
        given = given.detach()
    on_cpu, failure = _is_on_cpu(given), None
    if on_cpu and _exports_numbers(given):
        try:
            return np.from_dlpack(given)
        except Exception as error:
            failure = error
    try:
        if hasattr(given, "__array__") or not hasattr(given, "numpy"):
            array = np.asarray(given)
        else:
            array = np.asarray(given.numpy())
    except Exception as error:
        if not on_cpu:
            raise BufferError(
                "it lives on another device than the CPU; give its .cpu() instead"
            ) from error
        if str(getattr(given, "dtype", "")) != "torch.bfloat16":
            raise
        return to_numpy(given.float())
    if array.dtype.kind == "O" and failure is not None:
        raise failure
    if array.dtype.kind == "O" and not on_cpu:
        raise BufferError("it lives on another device than the CPU; copy it there first")
    return array


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Say whether a dtype is the bfloat16 that JAX and TensorFlow bring."""
    return dtype.kind == "V" and dtype.name == "bfloat16"


def _exports_numbers(given: Any) -> bool:
    """Say whether DLPack may be tried: TensorFlow ends the process over a tensor of strings."""
    if not hasattr(given, "__dlpack__"):
        return False
    dtype = getattr(given, "dtype", None)
    return dtype is None or _NUMBERS.search(str(dtype)) is not None


def _is_on_cpu(given: Any) -> bool:
    try:
        return int(given.__dlpack_device__()[0]) in _CPU_DEVICES
    except Exception:
        return True  # where it is cannot be told; the ways above work or fail
