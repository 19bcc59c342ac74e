"""Losses of a critic, whose scores are to be high for a teacher and low for a student."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from stillhouse.functional.distance import vector_norm


def hinge_critic(student: Tensor, teacher: Tensor) -> Tensor:
    """The hinge loss of the critic for its two scores of each image: (N,), (N,) -> (N,)."""
    return (1 - teacher).relu() + (1 + student).relu()


def wasserstein_critic(student: Tensor, teacher: Tensor) -> Tensor:
    """The difference of its two scores of each image: (N,), (N,) -> (N,)."""
    return student - teacher


def gradient_penalty(critic: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """(|gradient of the score| - 1)^2 for each image (Gulrajani et al., 2017): (N, ...) -> (N,).

    The critic gives one score for each image, (N,). The inputs get no gradient from it.
    """
    with torch.enable_grad():
        leaf = inputs.detach().requires_grad_()
        (slope,) = torch.autograd.grad(critic(leaf).sum(), leaf, create_graph=True)
        penalty: Tensor = (vector_norm(slope.flatten(1)) - 1).square()
    return penalty
