"""The closed form against the readable reference: value, gradient, sizes, types, extremes."""

import math

import pytest
import torch
from torch import Tensor

from stillhouse.functional.divergence import sigmoid_cross_entropy, sigmoid_kl
from stillhouse.kernels import binary
from stillhouse.kernels.dispatch import reference_only

PAIRS = {
    "kl": (sigmoid_kl, binary.binary_kl),
    "ce": (sigmoid_cross_entropy, binary.binary_cross_entropy),
}
both = pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)


def value_and_gradient(
    function, student: Tensor, teacher: Tensor, temperature: float, upstream: Tensor
):
    student = student.clone().requires_grad_()
    losses = function(student, teacher, temperature)
    (losses * upstream).sum().backward()
    return losses.detach(), student.grad


@both
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (17, 1), (0, 4), (5, 33, 2)])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.double, 1e-12), (torch.float, 2e-6), (torch.bfloat16, 2e-2), (torch.half, 2e-3)],
)
def test_it_equals_the_reference_under_any_upstream_gradient(pair, shape, dtype, tolerance) -> None:
    accelerated, fast = pair
    student, teacher = (3 * torch.randn(shape)).to(dtype), (3 * torch.randn(shape)).to(dtype)
    upstream = torch.randn(shape)
    for temperature in (0.5, 1.0, 4.0):
        ours = value_and_gradient(fast, student, teacher, temperature, upstream)
        theirs = value_and_gradient(
            accelerated.reference, student.double(), teacher.double(), temperature, upstream
        )
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a.double(), b.double(), rtol=tolerance, atol=tolerance)


@both
def test_it_is_exact_at_extremes(pair) -> None:
    accelerated, fast = pair
    z = torch.tensor([0.0, 17, -17, 60, -60, 1e4, -1e4])
    student, teacher = z.repeat(7), z.repeat_interleave(7)
    ours = value_and_gradient(fast, student, teacher, 1.0, torch.ones(49))
    theirs = value_and_gradient(
        accelerated.reference, student.double(), teacher.double(), 1.0, torch.ones(49)
    )
    for a, b in zip(ours, theirs, strict=True):
        assert a.isfinite().all()
        torch.testing.assert_close(a.double(), b, rtol=1e-6, atol=2e-6)


@both
def test_a_class_masked_in_both_counts_nothing_and_no_number_stays_visible(pair) -> None:
    _, fast = pair
    masked = torch.tensor([-math.inf, 1.0])
    losses, gradient = value_and_gradient(fast, masked, masked, 1.0, torch.ones(2))
    assert losses[0] == 0 and gradient[0] == 0 and losses.isfinite().all()
    assert fast(torch.zeros(1), torch.tensor([math.nan])).isnan().all()


@both
def test_it_stands_in_only_where_no_other_gradient_is_asked_for(pair) -> None:
    accelerated, fast = pair
    plain, learnt = torch.zeros(2), torch.zeros(2, requires_grad=True)
    assert accelerated.pick(learnt, plain) is fast
    assert accelerated.pick(plain, learnt) is accelerated.reference
    assert (
        accelerated.pick(plain, plain, torch.ones((), requires_grad=True)) is accelerated.reference
    )
    with reference_only():
        assert accelerated.pick(learnt, plain) is accelerated.reference


def test_the_gradient_is_right_by_finite_differences() -> None:
    student = torch.randn(4, 3, dtype=torch.double, requires_grad=True)
    teacher = torch.randn(4, 3, dtype=torch.double)
    assert torch.autograd.gradcheck(lambda s: binary.binary_kl(s, teacher, 0.7), student)
