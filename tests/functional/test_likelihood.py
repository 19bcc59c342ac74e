"""A Gaussian's likelihood of a map."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import distributions

from feature_maps import agrees, maps
from references import hidden, plain
from stillhouse.functional.likelihood import gaussian_nll


def test_known_values() -> None:
    zero, five = torch.zeros(1, 2, 3, 3, dtype=torch.double), torch.full((2,), 5.0).double()
    assert float(gaussian_nll(zero, zero, five)) == pytest.approx(0.8047190, abs=1e-7)
    assert float(gaussian_nll(zero, zero + 1, five)) == pytest.approx(0.9047190, abs=1e-7)


def test_values_and_gradients_are_those_of_loops() -> None:
    mean, teacher = maps(2, 3, 2, 2)
    variance = torch.tensor([0.5, 1.0, 7.0], dtype=torch.double, requires_grad=True)
    v, t = variance.tolist(), teacher.tolist()
    agrees(lambda m: gaussian_nll(m, teacher, variance), lambda m: hidden.gaussian(m, t, v), mean)
    gaussian_nll(mean, teacher, variance).sum().backward()
    want = plain.gradient(lambda v: sum(hidden.gaussian(mean.tolist(), t, v)), v)
    np.testing.assert_allclose(variance.grad, want, rtol=1e-10)


def test_it_is_the_likelihood_but_for_a_constant() -> None:
    mean, teacher = maps(2, 3, 2, 2)
    variance = torch.tensor([0.5, 1.0, 7.0], dtype=torch.double)
    normal = distributions.Normal(mean, variance.sqrt()[:, None, None])
    want = -normal.log_prob(teacher).mean((1, 2, 3)) - math.log(2 * math.pi) / 2
    torch.testing.assert_close(gaussian_nll(mean, teacher, variance), want)


def test_the_best_variance_is_the_mean_square_of_the_error() -> None:
    mean, teacher = maps(4, 1, 3, 3)
    error = (mean - teacher).square().mean().detach()
    best = error.view(1).requires_grad_()
    (slope,) = torch.autograd.grad(gaussian_nll(mean, teacher, best).mean(), best)
    assert float(slope) == pytest.approx(0, abs=1e-12)
