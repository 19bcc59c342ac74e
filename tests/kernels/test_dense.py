"""Stand-ins of dense losses and of deformable convolution against their references."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stillhouse.functional.deform import deformable_convolution
from stillhouse.functional.focal import background
from stillhouse.kernels import deform


def test_background_of_huge_logits() -> None:
    logits = torch.tensor([-1e4, 0.0, 30.0, 1e4], requires_grad=True)
    losses = background(logits, 2.0)
    (slope,) = torch.autograd.grad(losses.sum(), logits)
    assert losses.detach().tolist() == pytest.approx([0.0, 0.25 * 0.693147, 30.0, 1e4])
    assert slope.tolist() == pytest.approx([0.0, 0.25 * (0.5 + 0.693147), 1.0, 1.0])


@pytest.mark.parametrize("spread", [0.0, 0.7, 6.0])
@pytest.mark.parametrize("side", [1, 3])
def test_deformable_convolution_equals_torchvision(spread: float, side: int) -> None:
    """With offsets far outside of the map, too."""
    random = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, dtype=torch.double)

    x, weight = draw(2, 3, 5, 7), draw(4, 3, side, side)
    offset, upstream = spread * draw(2, 2 * side * side, 5, 7), draw(2, 4, 5, 7)
    found = []
    for function in (deformable_convolution.reference, deform.sampled_convolution):
        leaves = [part.clone().requires_grad_() for part in (x, offset, weight)]
        out = function(*leaves)
        found.append((out.detach(), *torch.autograd.grad(out, leaves, upstream)))
    assert deformable_convolution.pick(x, offset, weight) is deform.sampled_convolution
    for number, (one, other) in enumerate(zip(*found, strict=True)):
        if number == 2 and not spread:
            continue  # at whole pixels, a bilinear sample has two slopes
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
