"""How far label-wise embeddings lie apart within groups: those of a class, or those of an image.

Rows (P, E) belong to groups (P,), in any order. All groups are done at once: there is a list of the
pairs of rows that share a group, and no loop over groups or rows.
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
from stillhouse.functional.relation import nothing

NUMBERS = 2**18  # that a part of the differences may have: 1 MB in single precision


class Pairs(NamedTuple):
    """Each two rows that share a group, once, those of one group one after another."""

    first: Tensor  # (M,) a row
    second: Tensor  # (M,) the other
    group: Tensor  # (M,) a number from 0 to below P that only pairs of the group have
    size: Tensor  # (M,) rows of the group


def pairs(groups: Tensor, least: int = 2) -> Pairs:
    """The pairs within groups that have at least so many rows: (P,) numbers of groups -> Pairs."""
    groups, order = groups.sort(stable=True)
    place = torch.arange(len(groups), device=groups.device)
    start = torch.searchsorted(groups, groups)
    size = torch.searchsorted(groups, groups, right=True) - start
    before = (place - start) * (size >= least)  # each row is paired with those before it
    first = place.repeat_interleave(before)
    # counted on through all pairs, a row's partners go from the start of its group to itself
    shift = start + before - before.cumsum(0)
    second = torch.arange(len(first), device=groups.device) + shift.index_select(0, first)
    found = (order, first), (order, second), (start, first), (size, first)
    return Pairs(*(values.index_select(0, at) for values, at in found))


def distance_relation(
    student: Tensor,
    teacher: Tensor,
    pairs: Pairs,
    relative: bool = True,
    weight: Tensor | None = None,
) -> Tensor:
    """Smooth L1 between distances, summed over groups: (P, E), (P, F), Pairs, (P,) -> ().

    Yang P. et al., 2023. A group counts both orders of each pair. `relative` takes distances in
    units of their mean over the group, and divides the sum of a group by its rows; the distance of
    two rows that are alone is then 1 whatever they are. `weight` is what the group of each row
    counts.
    """
    if not len(pairs.first):
        return nothing(student)
    lengths = torch.stack([distances(upcast(rows), pairs) for rows in (student, teacher)])
    if relative:
        lengths = lengths / means(lengths, pairs, len(student))
    losses = 2 * F.smooth_l1_loss(lengths[0], lengths[1], reduction="none")
    if relative:
        losses = losses / pairs.size
    if weight is not None:
        losses = losses * weight.index_select(0, pairs.first)
    return losses.sum()


def means(values: Tensor, pairs: Pairs, rows: int) -> Tensor:
    """The mean over the pairs of its group, for each pair: (..., M), Pairs, P -> (..., M)."""
    parts = values * 2 / (pairs.size * (pairs.size - 1))
    sums = values.new_zeros(*values.shape[:-1], rows).index_add(-1, pairs.group, parts)
    return sums.index_select(-1, pairs.group)


def distances(rows: Tensor, pairs: Pairs, eps: float = 1e-12, numbers: int = NUMBERS) -> Tensor:
    """The distance of each pair: (P, E), Pairs -> (M,).

    `eps` is the least squared distance; rows as near as that have no gradient. Distances come from
    differences and not from products of rows, which would lose what close rows differ by. Of the
    differences no more than `numbers` are held at a time, and none is kept for backward.
    """
    step = max(1, numbers // max(1, rows.shape[1]))
    found: Tensor = _Distances.apply(rows, pairs.first, pairs.second, math.sqrt(eps), step)
    return found


class _Distances(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, first: Tensor, second: Tensor, least: float, step: int
    ) -> Tensor:
        lengths = rows.new_empty(len(first))
        for part, way in _ways(rows, first, second, step):
            torch.linalg.vector_norm(way, dim=1, out=lengths[part])
        lengths.clamp_(min=least)
        ctx.save_for_backward(rows, first, second, lengths)
        ctx.least, ctx.step = least, step
        return lengths

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        rows, first, second, lengths = ctx.saved_tensors
        share = (gradient / lengths).masked_fill_(lengths <= ctx.least, 0)
        slope = torch.zeros_like(rows)
        for part, way in _ways(rows, first, second, ctx.step):
            way *= share[part, None]
            slope.index_add_(0, first[part], way)
            slope.index_add_(0, second[part], way, alpha=-1)
        return slope, None, None, None, None


def _ways(rows: Tensor, first: Tensor, second: Tensor, step: int) -> Iterator[tuple[slice, Tensor]]:
    """Differences of some pairs at a time, all in the same memory."""
    held = rows.new_empty(2, min(step, len(first)), rows.shape[1])
    for begin in range(0, len(first), step):
        part = slice(begin, begin + step)
        here, there = held[:, : len(first[part])]
        torch.index_select(rows, 0, first[part], out=here)
        torch.index_select(rows, 0, second[part], out=there)
        yield part, here.sub_(there)
