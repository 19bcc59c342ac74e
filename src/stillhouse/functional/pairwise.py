"""Similarities between the places of one map, compared between networks (Liu Y. et al., 2019)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from stillhouse.functional.distance import unit_vectors, vector_norm


def cell_size(height: int, width: int, share: float) -> tuple[int, int]:
    """The size of cells that cover a share of each side of a map, in whole pixels."""
    return max(1, int(share * height)), max(1, int(share * width))


def cell_maxima(maps: Tensor, grid: float) -> Tensor:
    """The maximum of each channel in each cell of a grid: (N, C, H, W) -> (N, C, P).

    From 1 on, `grid` is the number of cells a side. Below 1 it is the share of a side that a cell
    covers; the last cells of a side may then be smaller.
    """
    if grid >= 1:
        return F.adaptive_max_pool2d(maps, int(grid)).flatten(2)
    size = cell_size(maps.shape[2], maps.shape[3], grid)
    return F.max_pool2d(maps, size, ceil_mode=True).flatten(2)


def cosine_matrix(features: Tensor, constant_norm: bool = False) -> Tensor:
    """The cosine between each two places: (N, C, P) -> (N, P, P).

    With `constant_norm` there is no gradient through the norms. A place whose features are all 0
    has cosine 0 and no gradient.
    """
    places = features.mT
    if constant_norm:
        length = vector_norm(places.detach())[..., None]
        directions = places.where(length > 0, places.detach()) / length.where(length > 0, 1)
    else:
        directions = unit_vectors(places)
    return directions @ directions.mT


def pairwise_difference(student: Tensor, teacher: Tensor, constant_norm: bool = False) -> Tensor:
    """Mean squared difference of the cosines of all pairs: (N, C, P), (N, D, P) -> (N,)."""
    s, t = (cosine_matrix(x, constant_norm) for x in (student, teacher))
    return (s - t).square().mean((1, 2))
