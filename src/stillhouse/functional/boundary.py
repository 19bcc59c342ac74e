"""Losses on feature maps before a ReLU, which depend on the sign of the teacher."""

from __future__ import annotations

import math

from torch import Tensor

RARE = 1e-3  # a channel that is negative with a lower probability has a margin of 3 deviations


def activation_boundary(student: Tensor, teacher: Tensor, margin: float = 1.0) -> Tensor:
    """Squared hinge loss that pushes each neuron to the teacher's side of 0 by a margin.

    (N, C, H, W), (N, C, H, W) -> (N,), squares summed over an image (Heo et al., 2019). Only the
    teacher's sign counts.
    """
    distance = (margin - student).where(teacher > 0, student + margin)
    return distance.relu().square().flatten(1).sum(1)


def partial_squares(student: Tensor, teacher: Tensor, margin: Tensor) -> Tensor:
    """Partial L2: squared difference where the teacher is positive or the student above it.

    (N, C, H, W), (N, C, H, W), (C, 1, 1) -> (N,), summed over an image (Heo et al., 2019). The
    teacher is clipped from below at the margin, which is negative.
    """
    above = student - teacher.maximum(margin)
    return above.where(teacher > 0, above.relu()).square().flatten(1).sum(1)


def expected_negative(gain: Tensor, bias: Tensor) -> Tensor:
    """Expected value of a normal variable given that it is negative: (C,), (C,) -> (C,).

    Its deviation is |gain| and its mean the bias, as for a channel after BatchNorm.
    """
    deviation = gain.double().abs()
    mean = bias.double()
    height = mean / deviation.clamp(min=1e-12)
    below = (1 + (-height / math.sqrt(2)).erf()) / 2
    density = (-height.square() / 2).exp() / math.sqrt(2 * math.pi)
    expected = mean - deviation * density / below.clamp(min=RARE)
    return expected.where(below > RARE, -3 * deviation).to(bias.dtype)
