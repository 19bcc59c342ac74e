"""Comparing feature maps at several resolutions."""

from __future__ import annotations

from torch import Tensor

from stillhouse.functional.distance import mse
from stillhouse.functional.pooling import pool

SIDES = (4, 2, 1)  # of the pooled maps; only those smaller than the map are used


def hierarchical_context(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared difference of maps and of pooled maps, each at half the weight (Chen et al., 2021).

    (N, C, H, W), (N, C, H, W) -> (N,).
    """
    shortest = min(student.shape[2:])
    total, weight, sum_of_weights = mse(student.flatten(1), teacher.flatten(1)), 1.0, 1.0
    for side in (side for side in SIDES if side < shortest):
        weight /= 2
        coarse = (pool(maps, side, side).flatten(1) for maps in (student, teacher))
        total = total + weight * mse(*coarse)
        sum_of_weights += weight
    return total / sum_of_weights
