"""From measured points to what a system can do: its Pareto front, and speeds at given recalls."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

Curve = list[tuple[float, float]]


def pareto(points: Iterable[tuple[float, float]]) -> Curve:
    """Keep the (recall, speed) points that no other point beats in both; by rising recall."""
    front: Curve = []
    for recall, speed in sorted(points, reverse=True):
        if not front or speed > front[-1][1]:
            front.append((recall, speed))
    return front[::-1]


def speed_at(front: Sequence[tuple[float, float]], recall: float) -> float | None:
    """Speed on a front at a recall.

    Between two points the logarithm of speed is linear in recall. A recall below the front gets the
    speed of its fastest point, which is at least as good; one above it has no answer.

    Examples
    --------
    >>> speed_at([(0.8, 1000.0), (0.9, 10.0)], 0.85)
    100.0
    >>> speed_at([(0.8, 1000.0), (0.9, 10.0)], 0.5)
    1000.0
    >>> speed_at([(0.8, 1000.0), (0.9, 10.0)], 0.95) is None
    True
    """
    if not front or recall > front[-1][0]:
        return None
    if recall <= front[0][0]:
        return front[0][1]
    right = next(i for i, point in enumerate(front) if point[0] >= recall)
    (r0, s0), (r1, s1) = front[right - 1], front[right]
    weight = (recall - r0) / (r1 - r0)
    speed = math.exp((1 - weight) * math.log(s0) + weight * math.log(s1))
    return round(speed, 6)
