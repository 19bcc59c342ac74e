"""Losses around the ReLU, and the margin that BatchNorm's gain and bias say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

from feature_maps import STUDENT, TEACHER, agrees, finite, maps
from references import hidden
from stillhouse.functional.boundary import (
    activation_boundary,
    expected_negative,
    partial_squares,
)

MARGIN = torch.tensor([-0.4, -1.5, -0.7], dtype=torch.double)[:, None, None]


def partial(student: Tensor, teacher: Tensor) -> Tensor:
    return partial_squares(student, teacher, MARGIN.to(student.dtype))


both = pytest.mark.parametrize("loss", [activation_boundary, partial])


def test_known_values() -> None:
    assert float(activation_boundary(STUDENT, TEACHER)) == 28.0
    margin = torch.full((2, 1, 1), -0.5, dtype=torch.double)
    assert float(partial_squares(STUDENT, TEACHER, margin)) == 32.25


@pytest.mark.parametrize("margin", [0.5, 1.0, 2.0])
def test_boundaries_are_those_of_loops(margin: float) -> None:
    student, teacher = maps(3, 4, 2, 3)
    agrees(
        lambda s: activation_boundary(s, teacher, margin),
        lambda s: hidden.activation_boundary(s, teacher.tolist(), margin),
        student,
    )


def test_partial_squares_are_those_of_loops() -> None:
    student, teacher = maps(3, 3, 4, 4)
    agrees(
        lambda s: partial(s, teacher),
        lambda s: hidden.partial_squares(s, teacher.tolist(), MARGIN.flatten().tolist()),
        student,
    )


@both
def test_gradients_are_those_of_small_steps(loss) -> None:
    student, teacher = maps(2, 3, 2, 2)
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher), student)


@both
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_zeros_constants_and_large_maps_are_finite(loss, scale: float) -> None:
    for teacher in (torch.zeros(1, 3, 2, 2), scale * torch.randn(1, 3, 2, 2)):
        finite(lambda s, teacher=teacher: loss(s, teacher), torch.full((1, 3, 2, 2), scale))


def test_only_the_sign_of_the_teacher_counts_for_a_boundary() -> None:
    student, teacher = maps(3, 4, 2, 3)
    want = activation_boundary(student, teacher)
    assert torch.equal(activation_boundary(student, 1000 * teacher), want)
    assert torch.equal(activation_boundary(student, teacher.sign()), want)


def test_a_neuron_beyond_its_boundary_is_left_alone() -> None:
    teacher = torch.tensor([[[[1.0, -1.0]]]])
    value, slope = finite(lambda s: activation_boundary(s, teacher), 1.5 * teacher)
    assert float(value) == 0
    assert (slope == 0).all()


def test_the_same_map_is_at_no_distance_where_nothing_is_below_the_margin() -> None:
    same = torch.randn(3, 3, 4, 4).clamp(min=-0.3)
    value, slope = finite(lambda s: partial(s, same), same)
    assert (value == 0).all()
    assert (slope == 0).all()


def test_below_a_teacher_that_is_off_nothing_is_taught() -> None:
    teacher = torch.full((1, 3, 2, 2), -0.2)
    value, slope = finite(lambda s: partial(s, teacher), teacher - 3)
    assert float(value) == 0
    assert (slope == 0).all()


# ------------------------------------------------------------------------------------------ margins

GAINS = [(1.0, 0.0), (0.5, 0.3), (-2.0, 0.7), (1.5, -4.0), (0.1, -0.2), (1.0, 3.0)]


@pytest.mark.parametrize(("gain", "bias"), GAINS)
def test_a_margin_is_the_mean_of_a_normal_below_zero(gain: float, bias: float) -> None:
    found = float(expected_negative(*torch.tensor([[gain], [bias]], dtype=torch.double)))
    normal = stats.norm(bias, abs(gain))
    low = min(0.0, bias) - 12 * abs(gain)
    total, _ = integrate.quad(lambda x: x * normal.pdf(x), low, 0, limit=200)
    assert found == pytest.approx(total / normal.cdf(0), rel=1e-6)
    z = bias / abs(gain)
    closed = bias - abs(gain) * stats.norm.pdf(z) / stats.norm.cdf(-z)
    assert found == pytest.approx(closed, rel=1e-9)
    assert found < 0


def test_a_channel_that_is_hardly_ever_negative_gets_three_deviations() -> None:
    gain, bias = torch.tensor([1.0, -0.5, 1.0]), torch.tensor([3.2, 40.0, 3.05])
    found = expected_negative(gain, bias)
    assert found[:2].tolist() == [-3.0, -1.5]
    assert float(found[2]) == pytest.approx(3.05 - stats.norm.pdf(3.05) / stats.norm.cdf(-3.05))


def test_a_channel_without_spread_is_where_its_bias_is() -> None:
    found = expected_negative(torch.zeros(3), torch.tensor([-0.5, 0.0, 2.0]))
    np.testing.assert_allclose(found, [-0.5, 0.0, 0.0], atol=1e-12)
    assert found.dtype == torch.float32
    assert all(math.isfinite(value) for value in found.tolist())
