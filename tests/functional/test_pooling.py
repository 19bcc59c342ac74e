"""Averages over areas."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from stillhouse.functional.pooling import pool


@pytest.mark.parametrize("size", [(4, 4), (2, 8), (3, 5), (8, 8), (1, 1), (16, 8), (12, 9)])
def test_it_is_the_adaptive_pool(size: tuple[int, int]) -> None:
    maps = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(pool(maps, *size), F.adaptive_avg_pool2d(maps, size))


def test_a_map_of_that_size_is_itself() -> None:
    maps = torch.randn(2, 3, 4, 5)
    assert pool(maps, 4, 5) is maps
