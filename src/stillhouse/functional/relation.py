"""How the samples of a batch relate to each other, compared between two networks.

Each loss takes the rows of both networks, (N, E) and (N, F), and gives one number. Less than two
samples have no relation: the loss is 0, with a gradient of 0.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from stillhouse.functional.distance import unit


def nothing(student: Tensor) -> Tensor:
    """The loss where there is nothing to compare, 0 and still part of the graph: (...) -> ()."""
    return student.flatten()[:0].sum()


def distance_relation(student: Tensor, teacher: Tensor, eps: float = 1e-12) -> Tensor:
    """Smooth L1 between distances of pairs, in units of their mean: (N, E), (N, F) -> ().

    Park et al., 2019. `eps` is the least squared distance of two samples.
    """
    if len(student) < 2:
        return nothing(student)
    return F.smooth_l1_loss(distances(student, eps), distances(teacher, eps))


def distances(rows: Tensor, eps: float = 1e-12) -> Tensor:
    """Distance of each pair divided by the mean over pairs: (N, E) -> (N, N), diagonal 0.

    From differences and not from products of rows, which would lose what close rows differ by.
    """
    squares = (rows[:, None] - rows[None]).square().sum(-1).clamp(min=eps)
    lengths = squares.sqrt() * (1 - torch.eye(len(rows), dtype=rows.dtype, device=rows.device))
    return lengths / (lengths.sum() / (len(rows) * (len(rows) - 1)))


def angle_relation(student: Tensor, teacher: Tensor, eps: float = 1e-12) -> Tensor:
    """Smooth L1 between the angles of triples: (N, E), (N, F) -> (). Park et al., 2019."""
    if len(student) < 2:
        return nothing(student)
    return F.smooth_l1_loss(angles(student, eps), angles(teacher, eps))


def angles(rows: Tensor, eps: float = 1e-12) -> Tensor:
    """Cosine at j between the ways to i and to k, 0 where a way has no length: (N, E) -> [j, i, k].

    Two samples are at one place where their squared distance is below `eps`.
    """
    ways = unit(rows[None] - rows[:, None], math.sqrt(eps))
    return ways @ ways.mT


def probability_relation(student: Tensor, teacher: Tensor, eps: float = 1e-7) -> Tensor:
    """KL between who is near to whom, the mean over pairs: (N, E), (N, F) -> ().

    Passalis and Tefas, 2018.
    """
    if len(student) < 2:
        return nothing(student)
    s, t = affinities(student), affinities(teacher)
    return (t * ((t + eps).log() - (s + eps).log())).mean()


def affinities(rows: Tensor) -> Tensor:
    """Cosines as a distribution over samples, each sample itself included: (N, E) -> (N, N)."""
    directions = unit(rows)
    near = (1 + directions @ directions.mT).clamp(min=0) / 2
    return near / near.sum(1, keepdim=True)


def similarity_relation(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared difference of unit rows of the Gram matrices, the mean over pairs.

    Tung and Mori, 2019: (N, E), (N, F) -> ().
    """
    if len(student) < 2:
        return nothing(student)
    s, t = (unit(rows @ rows.mT) for rows in (student, teacher))
    return (s - t).square().mean()


def kernel_relation(student: Tensor, teacher: Tensor, gamma: float = 0.4, order: int = 2) -> Tensor:
    """Squared difference of Gaussian kernels of unit rows, the mean over pairs.

    Peng et al., 2019: (N, E), (N, F) -> ().
    """
    if len(student) < 2:
        return nothing(student)
    s, t = (gaussian(rows, gamma, order) for rows in (student, teacher))
    return (s - t).square().mean()


def gaussian(rows: Tensor, gamma: float, order: int) -> Tensor:
    """exp(-gamma |a - b|^2) of unit rows, as its Taylor series up to an order: (N, E) -> (N, N)."""
    directions = unit(rows)
    cosine = directions @ directions.mT
    series = torch.zeros_like(cosine)
    for power in range(order, -1, -1):
        series = series * cosine + (2 * gamma) ** power / math.factorial(power)
    return math.exp(-2 * gamma) * series


def neighbour_relation(student: Tensor, teacher: Tensor) -> Tensor:
    """Where two samples that follow each other both differ: (N, E), (N, E) -> ().

    The mean over neighbours in the batch of sum |d_i| |d_i+1| with d = student - teacher, as the
    code of Tian et al. has it for Peng et al., 2019. Its value depends on the order of samples.
    """
    if len(student) < 2:
        return nothing(student)
    gap = (student - teacher).abs()
    return (gap[:-1] * gap[1:]).sum(1).mean()
