"""Relations between the samples of a batch, compared between two networks.

Each loss takes the rows of both networks, (N, E) and (N, F), and returns a scalar. With fewer than
two samples the loss is 0, with a gradient of 0.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from stillhouse.functional.distance import unit_vectors


def zero_loss(student: Tensor) -> Tensor:
    """A loss of 0 that is part of the graph: (...) -> ()."""
    return student.flatten()[:0].sum()


def distance_relation(student: Tensor, teacher: Tensor, eps: float = 1e-12) -> Tensor:
    """Smooth L1 between pairwise distances over their mean: (N, E), (N, F) -> ().

    Park et al., 2019. `eps` is the minimum squared distance of two samples.
    """
    if len(student) < 2:
        return zero_loss(student)
    return F.smooth_l1_loss(relative_distances(student, eps), relative_distances(teacher, eps))


def relative_distances(rows: Tensor, eps: float = 1e-12) -> Tensor:
    """Pairwise distances divided by their mean: (N, E) -> (N, N), diagonal 0.

    They are computed from differences, since inner products lose precision for close rows.
    """
    squares = (rows[:, None] - rows[None]).square().sum(-1).clamp(min=eps)
    lengths = squares.sqrt() * (1 - torch.eye(len(rows), dtype=rows.dtype, device=rows.device))
    return lengths / (lengths.sum() / (len(rows) * (len(rows) - 1)))


def angle_relation(student: Tensor, teacher: Tensor, eps: float = 1e-12) -> Tensor:
    """Smooth L1 between the angles of triples: (N, E), (N, F) -> (). Park et al., 2019."""
    if len(student) < 2:
        return zero_loss(student)
    return F.smooth_l1_loss(angle_cosines(student, eps), angle_cosines(teacher, eps))


def angle_cosines(rows: Tensor, eps: float = 1e-12) -> Tensor:
    """Cosine of the angle at j between i and k: (N, E) -> (N, N, N), indexed [j, i, k].

    It is 0 where two samples coincide: where their squared distance is below `eps`.
    """
    directions = unit_vectors(rows[None] - rows[:, None], math.sqrt(eps))
    return directions @ directions.mT


def probability_relation(student: Tensor, teacher: Tensor, eps: float = 1e-7) -> Tensor:
    """KL between the affinities of samples, averaged over pairs: (N, E), (N, F) -> ().

    Passalis and Tefas, 2018.
    """
    if len(student) < 2:
        return zero_loss(student)
    s, t = affinities(student), affinities(teacher)
    return (t * ((t + eps).log() - (s + eps).log())).mean()


def affinities(rows: Tensor) -> Tensor:
    """Cosine similarities as distributions over all samples: (N, E) -> (N, N)."""
    directions = unit_vectors(rows)
    similarity = (1 + directions @ directions.mT).clamp(min=0) / 2
    return similarity / similarity.sum(1, keepdim=True)


def similarity_relation(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared difference of the normalised rows of the Gram matrices, averaged over pairs.

    Tung and Mori, 2019: (N, E), (N, F) -> ().
    """
    if len(student) < 2:
        return zero_loss(student)
    s, t = (unit_vectors(rows @ rows.mT) for rows in (student, teacher))
    return (s - t).square().mean()


def kernel_relation(student: Tensor, teacher: Tensor, gamma: float = 0.4, order: int = 2) -> Tensor:
    """Squared difference of Gaussian kernels of unit rows, averaged over pairs.

    Peng et al., 2019: (N, E), (N, F) -> ().
    """
    if len(student) < 2:
        return zero_loss(student)
    s, t = (gaussian_kernel(rows, gamma, order) for rows in (student, teacher))
    return (s - t).square().mean()


def gaussian_kernel(rows: Tensor, gamma: float, order: int) -> Tensor:
    """Taylor series of exp(-gamma |a - b|^2) for unit rows: (N, E) -> (N, N)."""
    directions = unit_vectors(rows)
    cosine = directions @ directions.mT
    series = torch.zeros_like(cosine)
    for power in range(order, -1, -1):
        series = series * cosine + (2 * gamma) ** power / math.factorial(power)
    return math.exp(-2 * gamma) * series


def neighbour_relation(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over neighbours in the batch of sum |d_i| |d_i+1|: (N, E), (N, E) -> ().

    d = student - teacher; this is what the code of Tian et al. has for Peng et al., 2019. Its value
    depends on the order of the samples.
    """
    if len(student) < 2:
        return zero_loss(student)
    gap = (student - teacher).abs()
    return (gap[:-1] * gap[1:]).sum(1).mean()
