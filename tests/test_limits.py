"""What a search asks for, and what that means."""

from __future__ import annotations

from typing import Any

import pytest

from swann import AHConfig, BruteForceConfig, ConfigError, IndexConfig, ReorderConfig, TreeConfig
from swann.limits import Limits


def config(score: Any = None, reorder: int | None = 20, **tree: Any) -> IndexConfig:
    return IndexConfig(
        num_neighbors=5,
        distance_measure="dot_product",
        tree=TreeConfig(num_leaves=10, num_leaves_to_search=3, **tree),
        score=score or AHConfig(),
        reorder=None if reorder is None else ReorderConfig(reordering_num_neighbors=reorder),
    )


@pytest.mark.parametrize(("leaves", "searched"), [(5, 3), (10, 3), (11, 4), (25, 8)])
def test_more_leaves_are_searched_where_leaves_were_split(leaves: int, searched: int) -> None:
    assert Limits(config(), leaves).defaults == (5, 20, searched)
    assert Limits(config(), leaves).resolve(None, None, 2).leaves == 2


def test_candidates() -> None:
    assert Limits(config(), 10).resolve(50, None, None) == (50, 50, 3)
    assert Limits(config(), 10).resolve(None, 7, None) == (5, 7, 3)
    assert Limits(config(reorder=None), 10).resolve(None, 7, None) == (5, 5, 3)
    assert Limits(config(BruteForceConfig(), reorder=None), 10).defaults == (5, 5, 3)


def test_spilled_datapoints_come_twice() -> None:
    assert Limits(config(soar_lambda=1.0), 10).defaults.candidates == 40
    assert Limits(config(soar_lambda=1.0, overretrieve_factor=1.5), 10).defaults.candidates == 30


@pytest.mark.parametrize("at", range(3))
def test_below_one(at: int) -> None:
    with pytest.raises(ConfigError):
        Limits(config(), 10).resolve(*(0 if i == at else None for i in range(3)))
