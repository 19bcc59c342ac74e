"""Losses that know where a ReLU cuts: both sides of it are maps before the activation."""

from __future__ import annotations

import math

from torch import Tensor

RARE = 1e-3  # a channel that is negative less often gets the margin of three deviations


def activation_boundary(student: Tensor, teacher: Tensor, margin: float = 1.0) -> Tensor:
    """How far each neuron is from being on, or off, by a margin where the teacher's is.

    (N, C, H, W), (N, C, H, W) -> (N,), squares summed over an image (Heo et al., 2019). Only the
    teacher's sign counts.
    """
    lacking = (margin - student).where(teacher > 0, student + margin)
    return lacking.relu().square().flatten(1).sum(1)


def partial_squares(student: Tensor, teacher: Tensor, margin: Tensor) -> Tensor:
    """Squared difference where the teacher is on or the student is above it.

    (N, C, H, W), (N, C, H, W), (C, 1, 1) -> (N,), summed over an image (Heo et al., 2019). What the
    teacher has below the margin, which is negative, counts as the margin.
    """
    above = student - teacher.maximum(margin)
    return above.where(teacher > 0, above.relu()).square().flatten(1).sum(1)


def expected_negative(gain: Tensor, bias: Tensor) -> Tensor:
    """What a normal variable is on average where it is negative: (C,), (C,) -> (C,).

    Its deviation is |gain| and its mean the bias, as BatchNorm leaves a channel.
    """
    deviation = gain.double().abs()
    mean = bias.double()
    height = mean / deviation.clamp(min=1e-12)
    below = (1 + (-height / math.sqrt(2)).erf()) / 2
    density = (-height.square() / 2).exp() / math.sqrt(2 * math.pi)
    expected = mean - deviation * density / below.clamp(min=RARE)
    return expected.where(below > RARE, -3 * deviation).to(bias.dtype)
