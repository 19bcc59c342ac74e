"""Distances of real vectors, their weights, and vectors that point nowhere."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from references import plain
from stillhouse.functional import cosine, mse, pearson

Distance = Callable[..., Tensor]
every = pytest.mark.parametrize("distance", [mse, cosine, pearson], ids=lambda f: f.__name__)


def pair(*shape: int) -> tuple[Tensor, Tensor]:
    student, teacher = torch.randn(2, *shape, dtype=torch.double)
    return student.requires_grad_(), teacher


@every
def test_the_last_axis_goes_and_the_others_stay(distance: Distance) -> None:
    student, teacher = pair(2, 3, 4)
    assert distance(student, teacher).shape == (2, 3)


@every
def test_a_weight_counts_events(distance: Distance) -> None:
    """Twice the weight is the event said twice, none is no event."""
    student, teacher = pair(3, 4)
    weight = torch.tensor([2.0, 1.0, 0.0, 1.0], dtype=torch.double)
    said = [0, 0, 1, 3]
    want = distance(student[:, said], teacher[:, said])
    torch.testing.assert_close(distance(student, teacher, weight), want)
    torch.testing.assert_close(distance(student, teacher, 5 * weight), want)


@every
def test_equal_vectors_are_at_no_distance_at_all(distance: Distance) -> None:
    same = torch.randn(5, 7).requires_grad_()
    loss = distance(same, same.detach())
    (slope,) = torch.autograd.grad(loss.sum(), same)
    assert (loss == 0).all()
    assert (slope == 0).all()


@every
def test_no_events_leave_no_nan(distance: Distance) -> None:
    student, teacher = pair(3, 0)
    loss = distance(student, teacher)
    (slope,) = torch.autograd.grad(loss.sum(), student)
    assert loss.isfinite().all()
    assert slope.shape == (3, 0)


@pytest.mark.parametrize("mode", ["clamp", "add"])
@pytest.mark.parametrize(
    ("distance", "formula"), [(cosine, plain.cosine), (pearson, plain.correlation)]
)
def test_angles_are_their_formula(distance: Distance, formula: Callable, mode: str) -> None:
    student, teacher = pair(6)
    for eps in (1e-8, 3.0):  # the second one is large enough to be met
        got = distance(student, teacher, None, eps, mode)
        want = 1 - formula(student.tolist(), teacher.tolist(), None, mode, eps).real
        assert got.item() == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("mode", ["clamp", "add"])
@pytest.mark.parametrize("distance", [cosine, pearson])
def test_vectors_that_point_nowhere_are_unlike_and_pull_nowhere(
    distance: Distance, mode: str
) -> None:
    zero = torch.zeros(3, 4, requires_grad=True)
    for teacher in (torch.randn(3, 4), torch.zeros(3, 4)):
        loss = distance(zero, teacher, mode=mode)
        (slope,) = torch.autograd.grad(loss.sum(), zero)
        assert torch.equal(loss, torch.ones(3))
        assert slope.isfinite().all()
    assert torch.equal(distance(torch.randn(3, 4), torch.zeros(3, 4), mode=mode), torch.ones(3))


def test_a_constant_student_row_gets_no_gradient_from_correlation() -> None:
    student = torch.full((2, 8), 7.3)
    student[1] += 1e-6 * torch.randn(8)
    student.requires_grad_()
    loss = pearson(student, torch.randn(2, 8))
    loss.sum().backward()
    assert loss.isfinite().all()
    assert (student.grad == 0).all()


def test_a_small_spread_on_a_small_level_is_no_rounding_noise() -> None:
    """What is constant is judged by its level: tiny probabilities still have relations."""
    student = (1e-6 * torch.rand(2, 8)).requires_grad_()
    teacher = torch.rand(2, 8)
    pearson(student, teacher).sum().backward()
    assert (student.grad.abs().sum(1) > 0).all()
    torch.testing.assert_close(pearson(student, teacher), pearson(1e6 * student, teacher))


def test_an_event_without_weight_does_not_make_a_vector_vary() -> None:
    student = torch.ones(1, 5).requires_grad_()
    with torch.no_grad():
        student[0, 4] = 100.0
    weight = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0])
    pearson(student, torch.randn(1, 5), weight).sum().backward()
    assert (student.grad == 0).all()
