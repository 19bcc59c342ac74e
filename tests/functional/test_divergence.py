"""Divergences of log-probabilities, and what they do with what cannot happen."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from references import plain
from stillhouse.functional import (
    cross_entropy,
    jensen_shannon,
    kl,
    partial_softmax_kl,
    reverse_kl,
    sigmoid_kl,
    softmax_kl,
)
from stillhouse.functional.divergence import binary_log_probabilities, expectation
from stillhouse.kernels.dispatch import reference_only

Divergence = Callable[[Tensor, Tensor], Tensor]
ALL = [kl, reverse_kl, cross_entropy, jensen_shannon]
every = pytest.mark.parametrize("divergence", ALL, ids=lambda f: f.__name__)


def pair(*shape: int) -> tuple[Tensor, Tensor]:
    student, teacher = torch.randn(2, *shape, dtype=torch.double).log_softmax(-1)
    return student, teacher


@every
def test_the_last_axis_goes_and_the_others_stay(divergence: Divergence) -> None:
    student, teacher = pair(2, 3, 4)
    whole = divergence(student, teacher)
    assert whole.shape == (2, 3)
    torch.testing.assert_close(whole[1, 2], divergence(student[1, 2], teacher[1, 2]))


def test_kl_has_the_teacher_first_and_reverse_kl_the_student() -> None:
    student, teacher = pair(5)
    p, q = teacher.exp().tolist(), student.exp().tolist()
    assert kl(student, teacher).item() == pytest.approx(plain.kl(p, q).real, rel=1e-12)
    assert reverse_kl(student, teacher).item() == pytest.approx(plain.kl(q, p).real, rel=1e-12)


def test_jensen_shannon_is_symmetric_and_at_most_log_two() -> None:
    student, teacher = pair(6, 5)
    torch.testing.assert_close(jensen_shannon(student, teacher), jensen_shannon(teacher, student))
    apart = torch.tensor([[0.0, -math.inf], [-math.inf, 0.0]])
    assert jensen_shannon(apart[0], apart[1]).item() == pytest.approx(math.log(2), rel=1e-6)


@every
def test_what_is_impossible_in_both_counts_nothing(divergence: Divergence) -> None:
    student, teacher = pair(3, 4)
    never = torch.full((3, 1), -math.inf, dtype=torch.double)
    longer = torch.cat((student, never), 1).requires_grad_()
    loss = divergence(longer, torch.cat((teacher, never), 1))
    torch.testing.assert_close(loss, divergence(student, teacher))
    (slope,) = torch.autograd.grad(loss.sum(), longer)
    assert slope.isfinite().all()


def test_what_the_student_alone_rules_out_costs_infinitely_much() -> None:
    certain = torch.tensor([0.0, -math.inf])
    assert kl(certain, torch.tensor([0.5, 0.5]).log()) == math.inf
    assert kl(torch.tensor([0.5, 0.5]).log(), certain).item() == pytest.approx(math.log(2))


@every
def test_a_nan_is_seen(divergence: Divergence) -> None:
    student, teacher = pair(3, 4)
    for broken in (student, teacher):
        kept = broken[1, 2].clone()
        broken[1, 2] = math.nan
        assert divergence(student, teacher).isnan().tolist() == [False, True, False]
        broken[1, 2] = kept


def test_expect_is_the_mean_under_a_distribution() -> None:
    chances = torch.tensor([0.25, 0.75, 0.0]).log()
    values = torch.tensor([4.0, 8.0, math.inf])
    assert expectation(chances, values).item() == pytest.approx(7.0)


@pytest.mark.parametrize("logit", [0.0, 2.0, -30.0, 200.0, -1e4])
def test_yes_and_no_stay_exact(logit: float) -> None:
    yes, no = binary_log_probabilities(torch.tensor(logit)).tolist()
    softplus = max(logit, 0) + math.log1p(math.exp(-abs(logit)))
    assert yes == pytest.approx(logit - softplus, rel=1e-6, abs=1e-12)
    assert no == pytest.approx(-softplus, rel=1e-6, abs=1e-12)


def test_a_temperature_may_be_a_tensor_with_a_gradient() -> None:
    student, teacher = torch.randn(2, 3, 4, dtype=torch.double)
    tau = torch.tensor(2.0, dtype=torch.double, requires_grad=True)
    for function in (softmax_kl, sigmoid_kl):
        torch.testing.assert_close(function(student, teacher, tau), function(student, teacher, 2.0))
        (slope,) = torch.autograd.grad(function(student, teacher, tau).sum(), tau)
        assert slope != 0


def test_partial_softmax_never_expands_a_row_and_says_the_same() -> None:
    student, teacher = torch.randn(2, 3, 5, dtype=torch.double)
    hot = torch.tensor([[1, 0, 1, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    with reference_only():
        losses = partial_softmax_kl(student, teacher, hot)
    want = torch.zeros(3, 5, dtype=torch.double)
    for positive in (0, 2):
        support = [positive, 1, 3, 4]
        p, q = (plain.softmax(z[0, support].tolist()) for z in (teacher, student))
        want[0, positive] = plain.kl(p, q).real
    torch.testing.assert_close(losses, want)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised(dtype: torch.dtype) -> None:
    student, teacher = (20 * torch.randn(2, 4, 8)).to(dtype)
    hot = torch.eye(4, 8)
    for function, extra in ((softmax_kl, ()), (sigmoid_kl, ()), (partial_softmax_kl, (hot,))):
        losses = function(student, teacher, *extra)
        assert losses.dtype == torch.float
        assert torch.equal(losses, function(student.float(), teacher.float(), *extra))
