"""Averages over the unit sphere of what depends on one inner product, in logarithms.

For q uniform on the unit sphere in d dimensions, the angle t between q and a fixed x has density
sin^(d-2) t. In high dimension nearly all of it lies within 1 / sqrt(d) of a right angle, and what a
weight function picks out may be a part of 1e-1000: so panels are halved until nothing changes, and
all sums are kept as logarithms.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from swann.errors import ConfigError

__all__ = ["log_moments"]

F64 = NDArray[np.float64]

_NODES = 16
_ENOUGH = 1e-10
"""Of the whole: what a panel may be off by."""

_MOST_HALVINGS = 60
_MOST_PANELS = 512
"""Of a norm, that may still be off: a jump keeps one or two; without a bound they might double."""

_NORMS_AT_ONCE = 1024


@functools.cache
def _lobatto() -> tuple[F64, F64]:
    """Return nodes in [0, 1] and logarithms of their weights, by the rule of Gauss and Lobatto.

    It looks at the ends of a panel, so a jump cannot hide there. They are moved in by next to
    nothing, off a jump that is known (by enough for the cosine to differ from 1 next to 0).
    """
    basis = np.polynomial.legendre.Legendre.basis(_NODES - 1)
    nodes = np.concatenate([[-1.0], np.sort(basis.deriv().roots().real), [1.0]])
    weights = 2.0 / (_NODES * (_NODES - 1) * basis(nodes) ** 2)
    return np.clip((nodes + 1.0) / 2.0, 1e-7, 1.0 - 1e-7), np.log(weights / 2.0)


def log_moments(
    norms: F64, dimension: int, log_weight: Callable[[F64], F64], jumps: tuple[float, ...]
) -> tuple[F64, F64]:
    """Return log E[w cos^2 t] and log E[w sin^2 t] / (d - 1), with w of |x| cos t.

    Parameters
    ----------
    norms : float64 array of shape (n,)
        The |x|.
    dimension : int
        At least 1; in one dimension the second is the first.
    log_weight : callable
        The logarithm of w, of an array.
    jumps : tuple of float
        Where w is not continuous, as far as is known.

    Returns
    -------
    tuple of (float64 array of shape (n,), float64 array of shape (n,))
        Minus infinity where w is 0 throughout.

    Raises
    ------
    ConfigError
        If w jumps or turns so often that its integral cannot be told.
    """
    if dimension == 1:
        both = np.logaddexp(log_weight(norms), log_weight(-norms)) - math.log(2.0)
        return both, both
    along, across = np.empty_like(norms), np.empty_like(norms)
    for first in range(0, len(norms), _NORMS_AT_ONCE):
        part = slice(first, first + _NORMS_AT_ONCE)
        along[part], across[part] = _Panels(norms[part], dimension, log_weight).integrate(jumps)
    whole = math.log(math.pi) / 2 + math.lgamma((dimension - 1) / 2) - math.lgamma(dimension / 2)
    return along - whole, across - whole - math.log(dimension - 1)


class _Panels:
    """Integrals of some norms at once; a panel belongs to one of them (its owner)."""

    def __init__(self, norms: F64, dimension: int, log_weight: Callable[[F64], F64]) -> None:
        self.norms = norms
        self.power = dimension - 2
        self.log_weight = log_weight

    def integrate(self, jumps: tuple[float, ...]) -> tuple[F64, F64]:
        owner, low, high = self._first(jumps)
        whole = self._logs(owner, low, high)
        done = np.full((2, len(self.norms)), -np.inf)
        for halving in range(_MOST_HALVINGS):
            middle = (low + high) / 2.0
            left, right = self._logs(owner, low, middle), self._logs(owner, middle, high)
            both = np.logaddexp(left, right)
            total = done.copy()
            for row, values in zip(total, both, strict=True):
                np.logaddexp.at(row, owner, values)
            scale = np.where(np.isfinite(total), total, 0.0)[:, owner]
            off = np.abs(np.exp(both - scale) - np.exp(np.minimum(whole - scale, 9.0))).max(axis=0)
            ready = (off <= _ENOUGH) | (halving == _MOST_HALVINGS - 1)
            for row, values in zip(done, both, strict=True):
                np.logaddexp.at(row, owner[ready], values[ready])
            more = ~ready
            if not more.any():
                break
            if np.bincount(owner[more]).max() > _MOST_PANELS:
                raise ConfigError(
                    "weight jumps or turns too often to be integrated; expected a smooth function "
                    "but for some hundred jumps"
                )
            owner = np.tile(owner[more], 2)
            low, high = (
                np.concatenate([low[more], middle[more]]),
                np.concatenate([middle[more], high[more]]),
            )
            whole = np.concatenate([left[:, more], right[:, more]], axis=1)
        return done[0], done[1]

    def _first(self, jumps: tuple[float, ...]) -> tuple[NDArray[np.intp], F64, F64]:
        """Panels that double in width away from the right angle, cut at the jumps."""
        width = 1.0 / math.sqrt(self.power + 2)
        steps = width * 2.0 ** np.arange(math.ceil(math.log2(math.pi / 2 / width)) + 1)
        offsets = np.concatenate([-steps[::-1], [0.0], steps])
        edges = [
            np.broadcast_to(
                np.clip(math.pi / 2 + offsets, 0, math.pi), (len(self.norms), len(offsets))
            )
        ]
        for jump in jumps:
            with np.errstate(divide="ignore", invalid="ignore"):
                cosine = np.nan_to_num(np.clip(jump / self.norms, -1.0, 1.0))
            edges.append(np.arccos(cosine)[:, None])
        cuts = np.sort(np.concatenate(edges, axis=1), axis=1)
        owner, at = np.nonzero(cuts[:, 1:] > cuts[:, :-1])
        return owner, cuts[owner, at], cuts[owner, at + 1]

    def _logs(self, owner: NDArray[np.intp], low: F64, high: F64) -> F64:
        """Return the logarithms of both integrals over panels, shape (2, panels)."""
        nodes, log_shares = _lobatto()
        angles = low[:, None] + (high - low)[:, None] * nodes
        cosine, sine = np.cos(angles), np.sin(angles)
        with np.errstate(divide="ignore"):
            log_sine, log_cosine = np.log(sine), np.log(np.abs(cosine))
            log_width = np.log(high - low)
        values = self.log_weight(self.norms[owner][:, None] * cosine)
        values = values + self.power * log_sine + log_shares + log_width[:, None]
        return np.stack([_log_sum(values + 2.0 * part) for part in (log_cosine, log_sine)])


def _log_sum(values: F64) -> F64:
    """Return the logarithms of the sums of exponentials along the last axis."""
    top = values.max(axis=-1)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore", under="ignore"):
        total: F64 = np.log(np.exp(values - top[:, None]).sum(axis=-1)) + top
    return total
