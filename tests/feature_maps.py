"""Feature maps for tests of losses on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from references import plain

STUDENT = torch.tensor([[[[0, 1], [2, 3]], [[1, -1], [0, 2]]]], dtype=torch.double)
TEACHER = torch.tensor([[[[1, 1], [0, 2]], [[-1, 3], [2, 0]]]], dtype=torch.double)


def maps(*shape: int) -> tuple[Tensor, Tensor]:
    """Maps of two networks that differ, in double precision."""
    student, teacher = torch.randn(2, *shape, dtype=torch.double)
    return student.requires_grad_(), teacher


def agrees(
    loss: Callable[[Tensor], Tensor], formula: Callable[[Any], Sequence[complex]], at: Tensor
) -> None:
    """The loss per image, and the gradient of its sum, equal those of a plain formula."""
    value = loss(at)
    (slope,) = torch.autograd.grad(value.sum(), at)
    want = [z.real for z in map(complex, formula(at.tolist()))]
    np.testing.assert_allclose(value.detach().numpy(), want, rtol=1e-10, atol=1e-12)
    derivative = plain.gradient(lambda x: sum(formula(x)), at.tolist())
    np.testing.assert_allclose(slope.numpy(), derivative, rtol=1e-9, atol=1e-12)


def finite(loss: Callable[[Tensor], Tensor], at: Tensor) -> tuple[Tensor, Tensor]:
    """Value and gradient, which must be finite."""
    at = at.clone().requires_grad_()
    value = loss(at)
    (slope,) = torch.autograd.grad(value.sum(), at)
    assert value.isfinite().all()
    assert slope.isfinite().all()
    return value.detach(), slope
