"""Sums over pieces equal those of the whole, with the same gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stillhouse.functional.pieces import sum_over_pieces, sums_over_pieces

PLACES = [(slice(0, 2), slice(None)), (slice(2, 3), slice(0, 4)), (slice(2, 3), slice(4, 5))]
FACTORS = torch.randn(3, 5, dtype=torch.double)


def one(part: Tensor, number: int) -> Tensor:
    return (part.exp() * FACTORS[PLACES[number]]).sum()


def several(part: Tensor, number: int) -> Tensor:
    return torch.stack([one(part, number), (part**3).sum()])


def whole() -> Tensor:
    return torch.randn(3, 5, dtype=torch.double, requires_grad=True)


def test_a_number_and_its_gradient() -> None:
    x = whole()
    total = sum_over_pieces(one, x, PLACES)
    (-2.5 * total).backward()
    torch.testing.assert_close(total, (x.exp() * FACTORS).sum())
    torch.testing.assert_close(x.grad, -2.5 * x.detach().exp() * FACTORS)


def test_several_numbers_and_their_gradients() -> None:
    x, upstream = whole(), torch.tensor([0.5, -3.0], dtype=torch.double)
    totals = sums_over_pieces(several, x, PLACES)
    (totals * upstream).sum().backward()
    plain = torch.stack([(x.exp() * FACTORS).sum(), (x**3).sum()])
    torch.testing.assert_close(totals, plain)
    expected = 0.5 * x.detach().exp() * FACTORS - 9 * x.detach() ** 2
    torch.testing.assert_close(x.grad, expected)


@pytest.mark.parametrize("sums", [sum_over_pieces, sums_over_pieces])
def test_a_second_backward_has_the_same_gradient(sums: type[object]) -> None:
    x = whole()
    total = sums(one, x, PLACES)  # type: ignore[call-arg]
    assert isinstance(total, Tensor)
    first = torch.autograd.grad(total, x, torch.tensor(3.0).double(), retain_graph=True)[0].clone()
    second = torch.autograd.grad(total, x, torch.tensor(0.0).double(), retain_graph=True)[0]
    third = torch.autograd.grad(total, x, torch.tensor(3.0).double())[0]
    assert not second.any()
    torch.testing.assert_close(first, third)


def test_nothing_is_learned_without_a_gradient() -> None:
    assert not sum_over_pieces(one, whole().detach(), PLACES).requires_grad
    with torch.no_grad():
        assert not sum_over_pieces(one, whole(), PLACES).requires_grad


def test_the_gradient_has_the_dtype_of_the_tensor() -> None:
    x = torch.randn(3, 5, dtype=torch.bfloat16, requires_grad=True)
    sum_over_pieces(lambda part, _: part.float().square().sum(), x, PLACES).backward()
    assert x.grad is not None and x.grad.dtype is torch.bfloat16
    torch.testing.assert_close(x.grad, 2 * x.detach())


def test_pieces_may_overlap() -> None:
    x = whole()
    sum_over_pieces(
        lambda part, number: (number + 1) * part.square().sum(), x, [(0,), (0,)]
    ).backward()
    expected = torch.zeros_like(x)
    expected[0] = 3 * 2 * x.detach()[0]
    torch.testing.assert_close(x.grad, expected)
