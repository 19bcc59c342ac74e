"""Correlations from sums over rows equal those of whole columns."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stillhouse.functional.distance import Epsilon, pearson
from stillhouse.functional.moments import column_moments, correlation_of_moments
from stillhouse.kernels.dispatch import reference_only


def columns(rows: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    student, teacher = torch.rand(2, rows, 5, dtype=torch.double)
    student[:, 3], teacher[:, 4] = 0.25, 0.5  # constant ones
    weight = torch.rand(rows, dtype=torch.double)
    weight[::3] = 0
    return student.requires_grad_(), teacher, weight


@pytest.mark.parametrize("mode", ["clamp", "add"])
def test_values_and_gradients_are_those_of_whole_columns(mode: Epsilon) -> None:
    student, teacher, weight = columns()
    parts = [
        column_moments(*(x[part] for x in (student, teacher, weight)))
        for part in (slice(0, 7), slice(7, 8), slice(8, 40))
    ]
    found, enough = correlation_of_moments(torch.stack(parts).sum(0), 1e-8, mode)
    with reference_only():
        expected = pearson(student.mT, teacher.mT, weight, 1e-8, mode)
    assert bool(enough.all())
    torch.testing.assert_close(found[:3], expected[:3], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)  # constants have noise
    slopes = [
        torch.autograd.grad(x[:3].sum(), student, retain_graph=True)[0] for x in (found, expected)
    ]
    torch.testing.assert_close(*slopes, rtol=1e-8, atol=1e-10)


def test_a_constant_column_has_no_gradient() -> None:
    student, teacher, weight = columns()
    losses, _ = correlation_of_moments(column_moments(student, teacher, weight))
    (slope,) = torch.autograd.grad(losses.sum(), student)
    assert slope.isfinite().all() and not slope[:, 3].any() and slope[:, 0].any()


def test_equal_columns_have_no_loss_and_hardly_a_gradient() -> None:
    student, _, weight = columns()
    losses, _ = correlation_of_moments(column_moments(student, student.detach(), weight))
    (slope,) = torch.autograd.grad(losses[0], student)
    assert abs(float(losses[0].detach())) < 1e-12 and float(slope.abs().max()) < 1e-10


@pytest.mark.parametrize("rows", [0, 1])
def test_fewer_than_two_rows_have_no_relation(rows: int) -> None:
    student, teacher, _ = columns(rows)
    moments = column_moments(student, teacher, torch.ones(rows, dtype=torch.double))
    losses, enough = correlation_of_moments(moments)
    assert losses.isfinite().all() and not enough.any()
    (slope,) = torch.autograd.grad(losses.sum(), student)
    assert slope.isfinite().all()


def test_single_precision_is_summed_in_double() -> None:
    student, teacher, weight = (x.detach().float() for x in columns(4000))
    student += 100  # whose squares would drown the variance
    moments = column_moments(student, teacher, weight)
    expected = pearson(student.double().mT, teacher.double().mT, weight.double())
    torch.testing.assert_close(
        correlation_of_moments(moments)[0][:3], expected[:3], rtol=1e-6, atol=0
    )
