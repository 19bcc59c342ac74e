"""Distances between label-wise embeddings within groups: of one class, or of one image.

Rows (P, E) belong to groups (P,), in any order. All groups are computed at once, from a list of
the pairs of rows that share a group, without a loop over groups or rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from stillhouse.functional.dtype import upcast
from stillhouse.functional.relation import zero_loss

NUMBERS = 2**18  # in a chunk of differences: 1 MB in float32


class GroupPairs(NamedTuple):
    """All pairs of rows that share a group, each once, sorted by group."""

    first: Tensor  # (M,) index of a row
    second: Tensor  # (M,) index of the other row
    group: Tensor  # (M,) index of the group, below P
    size: Tensor  # (M,) rows in the group


def group_pairs(groups: Tensor, least: int = 2) -> GroupPairs:
    """The pairs within groups of at least `least` rows: (P,) group numbers -> GroupPairs."""
    groups, order = groups.sort(stable=True)
    place = torch.arange(len(groups), device=groups.device)
    start = torch.searchsorted(groups, groups)
    size = torch.searchsorted(groups, groups, right=True) - start
    before = (place - start) * (size >= least)  # each row is paired with those before it
    first = place.repeat_interleave(before)
    # The partners of a row are the rows from the start of its group up to itself.
    shift = start + before - before.cumsum(0)
    second = torch.arange(len(first), device=groups.device) + shift.index_select(0, first)
    fields = (order, first), (order, second), (start, first), (size, first)
    return GroupPairs(*(values.index_select(0, index) for values, index in fields))


def group_distance_relation(
    student: Tensor,
    teacher: Tensor,
    pairs: GroupPairs,
    relative: bool = True,
    weight: Tensor | None = None,
) -> Tensor:
    """Smooth L1 between pairwise distances, summed over groups: (P, E), (P, F), (P,) -> ().

    Yang P. et al., 2023. Each pair counts in both orders. With `relative`, distances are divided
    by their mean over the group and the sum of a group by its rows; in a group of two rows the
    distance is then always 1. `weight` is the weight of the group of each row.
    """
    if not len(pairs.first):
        return zero_loss(student)
    lengths = torch.stack([pair_distances(upcast(rows), pairs) for rows in (student, teacher)])
    if relative:
        lengths = lengths / group_means(lengths, pairs, len(student))
    losses = 2 * F.smooth_l1_loss(lengths[0], lengths[1], reduction="none")
    if relative:
        losses = losses / pairs.size
    if weight is not None:
        losses = losses * weight.index_select(0, pairs.first)
    return losses.sum()


def group_means(values: Tensor, pairs: GroupPairs, rows: int) -> Tensor:
    """For each pair the mean over the pairs of its group: (..., M) -> (..., M)."""
    parts = values * 2 / (pairs.size * (pairs.size - 1))
    sums = values.new_zeros(*values.shape[:-1], rows).index_add(-1, pairs.group, parts)
    return sums.index_select(-1, pairs.group)


def pair_distances(
    rows: Tensor, pairs: GroupPairs, eps: float = 1e-12, numbers: int = NUMBERS
) -> Tensor:
    """The distance of each pair: (P, E) -> (M,).

    `eps` is the minimum squared distance; closer rows have no gradient. Distances are computed
    from differences, since inner products lose precision for close rows. At most `numbers`
    differences are in memory at a time, and none is saved for backward.
    """
    step = max(1, numbers // max(1, rows.shape[1]))
    distances: Tensor = _Distances.apply(rows, pairs.first, pairs.second, math.sqrt(eps), step)
    return distances


class _Distances(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, first: Tensor, second: Tensor, least: float, step: int
    ) -> Tensor:
        lengths = rows.new_empty(len(first))
        for part, difference in _differences(rows, first, second, step):
            torch.linalg.vector_norm(difference, dim=1, out=lengths[part])
        lengths.clamp_(min=least)
        ctx.save_for_backward(rows, first, second, lengths)
        ctx.least, ctx.step = least, step
        return lengths

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        rows, first, second, lengths = ctx.saved_tensors
        scale = (gradient / lengths).masked_fill_(lengths <= ctx.least, 0)
        grad_rows = torch.zeros_like(rows)
        for part, difference in _differences(rows, first, second, ctx.step):
            difference *= scale[part, None]
            grad_rows.index_add_(0, first[part], difference)
            grad_rows.index_add_(0, second[part], difference, alpha=-1)
        return grad_rows, None, None, None, None


def _differences(
    rows: Tensor, first: Tensor, second: Tensor, step: int
) -> Iterator[tuple[slice, Tensor]]:
    """The differences of a chunk of pairs at a time, in reused memory."""
    buffer = rows.new_empty(2, min(step, len(first)), rows.shape[1])
    for begin in range(0, len(first), step):
        part = slice(begin, begin + step)
        here, there = buffer[:, : len(first[part])]
        torch.index_select(rows, 0, first[part], out=here)
        torch.index_select(rows, 0, second[part], out=there)
        yield part, here.sub_(there)
