"""Divergences between log-probabilities, reduced over the last axis, that of the events."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from stillhouse.functional.dtype import upcast
from stillhouse.kernels import binary, binary_rows, softmax_rows
from stillhouse.kernels.dispatch import Accelerated


def kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) of log-probabilities: (..., E), (..., E) -> (...)."""
    return expectation(teacher, teacher - student)


def reverse_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(student || teacher) of log-probabilities: (..., E), (..., E) -> (...)."""
    return expectation(student, student - teacher)


def cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) plus the teacher's entropy: (..., E), (..., E) -> (...)."""
    return expectation(teacher, -student)


def jensen_shannon(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean KL of both to their mixture, at most log 2: (..., E), (..., E) -> (...)."""
    impossible = (student == -math.inf) & (teacher == -math.inf)  # where logaddexp has no gradient
    s, t = (x.masked_fill(impossible, 0) for x in (student, teacher))
    mixture = torch.logaddexp(s, t) - math.log(2)
    return (expectation(student, student - mixture) + expectation(teacher, teacher - mixture)) / 2


def expectation(log_probability: Tensor, values: Tensor) -> Tensor:
    """Expected value under a distribution, events of probability 0 left out: (..., E) -> (...).

    The test is for probability 0, not for `> 0`, so that NaN reaches the loss. Values are masked
    before the product, whose gradient would be 0 times an infinite value, that is NaN.
    """
    impossible = log_probability == -math.inf
    return (log_probability.exp() * values.masked_fill(impossible, 0)).sum(-1)


@Accelerated
def softmax_kl(student: Tensor, teacher: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """KL between tempered softmaxes, per row: (N, C), (N, C) -> (N,)."""
    return kl(*(F.log_softmax(upcast(z) / temperature, -1) for z in (student, teacher)))


def binary_log_probabilities(logits: Tensor) -> Tensor:
    """Log-probabilities of the sigmoid and of its complement: (...) -> (..., 2)."""
    return torch.stack((F.logsigmoid(logits), F.logsigmoid(-logits)), -1)


@Accelerated
def sigmoid_kl(student: Tensor, teacher: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """KL between tempered sigmoids, per class: (N, C), (N, C) -> (N, C)."""
    s, t = (binary_log_probabilities(upcast(z) / temperature) for z in (student, teacher))
    return kl(s, t)


@Accelerated
def sigmoid_cross_entropy(
    student: Tensor, teacher: Tensor, temperature: float | Tensor = 1.0
) -> Tensor:
    """Cross-entropy of tempered sigmoids, per class: (N, C), (N, C) -> (N, C)."""
    s, t = (binary_log_probabilities(upcast(z) / temperature) for z in (student, teacher))
    return cross_entropy(s, t)


def disagreement(student: Tensor, teacher: Tensor, beta: float, detach: bool = False) -> Tensor:
    """|q - p|^beta of two sigmoids, constant in the student if `detach`: (...), (...) -> (...).

    Where both are equal, the gradient is 0, also for a beta below 1.
    """
    student = student.detach() if detach else student
    difference = (teacher.sigmoid() - student.sigmoid()).abs()
    equal = difference == 0  # where a power below 1 has an infinite gradient
    return torch.where(equal, 1, difference).pow(beta).where(~equal, float(beta == 0))


@Accelerated
def sum_of_classes(
    student: Tensor,
    teacher: Tensor,
    temperature: float | Tensor = 1.0,
    *,
    entropy: bool = False,
    beta: float = 0.0,
    detach: bool = False,
) -> Tensor:
    """Sum over classes of their `sigmoid_kl`: (..., C), (..., C) -> (...).

    With `entropy` it is the cross-entropy. `beta` weighs each class by the `disagreement` of the
    networks, at temperature 1.
    """
    divergence = sigmoid_cross_entropy if entropy else sigmoid_kl
    losses = divergence(student, teacher, temperature)
    if beta:
        losses = losses * disagreement(upcast(student), upcast(teacher), beta, detach)
    return losses.sum(-1)


softmax_kl.stand_in(softmax_rows.supports)(softmax_rows.softmax_kl)
sum_of_classes.stand_in(binary_rows.supports)(binary_rows.sum_of_classes)
sigmoid_kl.stand_in(binary.supports)(binary.binary_kl)
sigmoid_cross_entropy.stand_in(binary.supports)(binary.binary_cross_entropy)


@Accelerated
def partial_softmax_kl(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    """KL of the softmax over each positive class and all negatives (Song et al., 2021).

    (N, C), (N, C), (N, C) multi-hot -> (N, C), zero at negative classes. The divergence is the sum
    of "positive or not" and "which negative", so that no row has to be expanded to C rows.
    """
    positive = target > 0
    s, t = upcast(student), upcast(teacher)
    rest_s, rest_t = (z.masked_fill(positive, -math.inf) for z in (s, t))
    has_negatives = ~positive.all(-1, keepdim=True)  # a row without negatives has no loss
    rest_s, rest_t = rest_s.where(has_negatives, 0), rest_t.where(has_negatives, 0)
    lse_s, lse_t = (z.logsumexp(-1, keepdim=True) for z in (rest_s, rest_t))
    which = kl(
        F.log_softmax(rest_s, -1).where(~positive, 0), F.log_softmax(rest_t, -1).where(~positive, 0)
    )
    margin_s, margin_t = s - lse_s, t - lse_t
    hit = kl(binary_log_probabilities(margin_s), binary_log_probabilities(margin_t))
    return (hit + torch.sigmoid(-margin_t) * which[..., None]).where(positive & has_negatives, 0)
