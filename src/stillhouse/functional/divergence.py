"""Divergences between log-probabilities. The event axis is last, and is the one that goes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from stillhouse.functional.dtype import upcast
from stillhouse.kernels import binary
from stillhouse.kernels.dispatch import Accelerated


def kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) of log-probabilities: (..., E), (..., E) -> (...)."""
    return expect(teacher, teacher - student)


def reverse_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(student || teacher) of log-probabilities: (..., E), (..., E) -> (...)."""
    return expect(student, student - teacher)


def cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) plus the teacher's entropy: (..., E), (..., E) -> (...)."""
    return expect(teacher, -student)


def jensen_shannon(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean KL of both to their mixture, at most log 2: (..., E), (..., E) -> (...)."""
    neither = (student == -math.inf) & (teacher == -math.inf)  # where logaddexp has no slope
    s, t = (x.masked_fill(neither, 0) for x in (student, teacher))
    mixture = torch.logaddexp(s, t) - math.log(2)
    return (expect(student, student - mixture) + expect(teacher, teacher - mixture)) / 2


def expect(log_probability: Tensor, values: Tensor) -> Tensor:
    """The mean under a distribution; what cannot happen counts nothing: (..., E) -> (...).

    The test is for probability 0, not for `> 0`: a NaN must reach the loss and be seen. The value
    goes before the product, whose gradient would be 0 times what the value is, inf or NaN.
    """
    impossible = log_probability == -math.inf
    return (log_probability.exp() * values.masked_fill(impossible, 0)).sum(-1)


@Accelerated
def softmax_kl(student: Tensor, teacher: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """KL between softened logits, rows apart: (N, C), (N, C) -> (N,)."""
    return kl(*(F.log_softmax(upcast(z) / temperature, -1) for z in (student, teacher)))


def binary_log_probabilities(logits: Tensor) -> Tensor:
    """Log-probability of yes and of no: (...) -> (..., 2)."""
    return torch.stack((F.logsigmoid(logits), F.logsigmoid(-logits)), -1)


@Accelerated
def sigmoid_kl(student: Tensor, teacher: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """KL between tempered yes-or-no answers, one a class: (N, C), (N, C) -> (N, C)."""
    s, t = (binary_log_probabilities(upcast(z) / temperature) for z in (student, teacher))
    return kl(s, t)


@Accelerated
def sigmoid_cross_entropy(
    student: Tensor, teacher: Tensor, temperature: float | Tensor = 1.0
) -> Tensor:
    """Cross-entropy of tempered yes-or-no answers, one a class: (N, C), (N, C) -> (N, C)."""
    s, t = (binary_log_probabilities(upcast(z) / temperature) for z in (student, teacher))
    return cross_entropy(s, t)


sigmoid_kl.stand_in(binary.fits)(binary.kl)
sigmoid_cross_entropy.stand_in(binary.fits)(binary.cross_entropy)


@Accelerated
def partial_softmax_kl(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    """KL of the softmax of each positive class against all negatives (Song et al., 2021).

    (N, C), (N, C), (N, C) multi-hot -> (N, C), zero at negative classes. The divergence splits
    into "the positive or not" and "which negative", so no row is ever expanded to C rows.
    """
    positive = target > 0
    s, t = upcast(student), upcast(teacher)
    rest_s, rest_t = (z.masked_fill(positive, -math.inf) for z in (s, t))
    some = ~positive.all(-1, keepdim=True)  # a row of positives alone has nothing to compare
    rest_s, rest_t = rest_s.where(some, 0), rest_t.where(some, 0)
    lse_s, lse_t = (z.logsumexp(-1, keepdim=True) for z in (rest_s, rest_t))
    which = kl(
        F.log_softmax(rest_s, -1).where(~positive, 0), F.log_softmax(rest_t, -1).where(~positive, 0)
    )
    margin_s, margin_t = s - lse_s, t - lse_t
    hit = kl(binary_log_probabilities(margin_s), binary_log_probabilities(margin_t))
    return (hit + torch.sigmoid(-margin_t) * which[..., None]).where(positive & some, 0)
