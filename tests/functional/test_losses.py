"""Losses of yes-or-no labels against plain formulas, at the extremes, and spelt by a recipe."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import TypeAdapter, ValidationError
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from stillhouse.functional.losses import BCE, Asymmetric, Focal, LabelLoss
from stillhouse.spec import members

POINTS: dict[str, Any] = {
    "bce": BCE(),
    "asymmetric": Asymmetric(),
    "asymmetric of the paper": Asymmetric(positive=0),
    "asymmetric without a gradient in its weights": Asymmetric(detach=True),
    "asymmetric without clip": Asymmetric(3.0, 0.5, clip=0),
    "asymmetric of a small power": Asymmetric(0.01, 0.01, clip=0),
    "asymmetric of a small power with clip": Asymmetric(0.01, 0.01, clip=0.1),
    "asymmetric without powers": Asymmetric(0, 0, clip=0.05),
    "focal": Focal(),
    "focal without alpha": Focal(alpha=None),
    "focal without gamma": Focal(gamma=0),
    "focal of a small gamma": Focal(0.01, 0.9),
}
every = pytest.mark.parametrize("name", POINTS)


def test_every_loss_of_the_union_is_tested() -> None:
    assert {type(point) for point in POINTS.values()} == set(members(LabelLoss))


def plain(loss: Any, z: float, y: float) -> float:
    """One loss from probabilities, as the papers write it."""
    p = 1 / (1 + math.exp(-z))
    if isinstance(loss, BCE):
        yes, no = -math.log(p), -math.log(1 - p)
    elif isinstance(loss, Asymmetric):
        q = max(p - loss.clip, 0)
        yes = -((1 - p) ** loss.positive) * math.log(p)
        no = -(q**loss.negative) * math.log(1 - q)
    else:
        alpha = (1, 1) if loss.alpha is None else (loss.alpha, 1 - loss.alpha)
        yes = -alpha[0] * (1 - p) ** loss.gamma * math.log(p)
        no = -alpha[1] * p**loss.gamma * math.log(1 - p)
    return y * yes + (1 - y) * no


def case(soft: bool = False) -> tuple[Tensor, Tensor]:
    logits = 3 * torch.randn(12, 7, dtype=torch.double)
    targets = torch.rand(12, 7, dtype=torch.double)
    return logits, targets if soft else (targets < 0.3).double()


# --------------------------------------------------------------------------------------- the values


@every
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_each_loss_is_that_of_a_plain_loop(name: str, soft: bool) -> None:
    logits, targets = case(soft)
    got = POINTS[name](logits, targets)
    want = [
        [plain(POINTS[name], z, y) for z, y in zip(*row, strict=True)]
        for row in zip(logits.tolist(), targets.tolist(), strict=True)
    ]
    torch.testing.assert_close(got, torch.tensor(want).double(), rtol=1e-6, atol=1e-12)
    assert (got >= 0).all()


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_bce_is_that_of_torch(soft: bool) -> None:
    logits, targets = case(soft)
    want = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    torch.testing.assert_close(BCE()(logits, targets), want)


def test_bce_with_a_teacher_has_the_golden_value() -> None:
    student, teacher = torch.tensor([[1.0, -2, 0]]), torch.tensor([[2.0, -4, -1]])
    assert BCE()(student, teacher.sigmoid()).sum().item() == pytest.approx(1.2885122, rel=1e-6)


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (0.5, 0.7), (2.0, None)])
def test_focal_is_that_of_torchvision(gamma: float, alpha: float | None) -> None:
    logits, targets = case()
    want = sigmoid_focal_loss(logits, targets, -1 if alpha is None else alpha, gamma)
    torch.testing.assert_close(Focal(gamma, alpha)(logits, targets), want)


def test_without_powers_all_are_cross_entropy() -> None:
    logits, targets = case(soft=True)
    want = BCE()(logits, targets)
    torch.testing.assert_close(Asymmetric(0, 0, clip=0)(logits, targets), want)
    torch.testing.assert_close(Focal(0, None)(logits, targets), want)
    torch.testing.assert_close(
        Asymmetric(2, 2, clip=0)(logits, targets), Focal(2, None)(logits, targets)
    )


def test_an_easy_no_costs_nothing_and_teaches_nothing() -> None:
    easy = torch.tensor([[0.049, 0.02, 1e-6]]).double().logit().requires_grad_()
    hard = torch.tensor([[0.051, 0.2, 0.9]]).double().logit().requires_grad_()
    no = torch.zeros(1, 3)
    for power in (0, 0.5, 4):
        for logits, silent in ((easy, True), (hard, False)):
            losses = Asymmetric(power, clip=0.05)(logits, no)
            (slope,) = torch.autograd.grad(losses.sum(), logits)
            assert ((losses == 0) & (slope == 0)).tolist() == [[silent] * 3]
            assert ((losses > 0) & (slope > 0)).tolist() == [[not silent] * 3]


# ------------------------------------------------------------------------------------ the gradients


@pytest.mark.parametrize(
    "name", [name for name, loss in POINTS.items() if not getattr(loss, "detach", False)]
)
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_gradients_are_those_of_differences(name: str, soft: bool) -> None:
    loss, (logits, targets) = POINTS[name], case(soft)
    assert torch.autograd.gradcheck(lambda z: loss(z, targets), logits.requires_grad_())


def slope(loss: Any, logits: Tensor, targets: Tensor) -> Tensor:
    logits = logits.detach().requires_grad_()
    (found,) = torch.autograd.grad(loss(logits, targets).sum(), logits)
    return found


@pytest.mark.parametrize("detach", [False, True])
def test_the_gradient_of_a_no_is_that_of_the_paper(detach: bool) -> None:
    """That is q^g (1 / (1 - q) - g log(1 - q) / q) p (1 - p), its second part from the weight."""
    p = torch.linspace(0.06, 0.99, 40, dtype=torch.double)
    q, g = p - 0.05, 4
    inner = 1 / (1 - q) - (0 if detach else g * (1 - q).log() / q)
    got = slope(Asymmetric(g, detach=detach), p.logit()[None], torch.zeros(1, 40))
    torch.testing.assert_close(got[0], q**g * inner * p * (1 - p))


@pytest.mark.parametrize("detach", [False, True])
def test_the_gradient_of_a_yes_keeps_or_drops_its_weight(detach: bool) -> None:
    p = torch.linspace(0.01, 0.99, 40, dtype=torch.double)
    want = -((1 - p) ** 2) + (0 if detach else (1 - p) * p * p.log())
    got = slope(Asymmetric(positive=1, detach=detach), p.logit()[None], torch.ones(1, 40))
    torch.testing.assert_close(got[0], want)


# ------------------------------------------------------------------------------------- the extremes

EXTREMES = [0.0, 1e-4, 16, 20, 60, 95, 103, 200, 1e4]


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("target", [0.0, 0.3, 1.0])
def test_values_and_gradients_stay_finite(name: str, dtype: torch.dtype, target: float) -> None:
    z = torch.tensor([EXTREMES, [-x for x in EXTREMES]], dtype=dtype).requires_grad_()
    losses = POINTS[name](z, torch.full_like(z, target))
    losses.sum().backward()
    assert losses.dtype == torch.promote_types(dtype, torch.float32)
    assert losses.isfinite().all()
    assert z.grad is not None
    assert z.grad.isfinite().all()


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(name: str, dtype: torch.dtype) -> None:
    logits, targets = case(soft=True)
    half = logits.to(dtype)
    want = POINTS[name](half.float(), targets.float())
    assert torch.equal(POINTS[name](half, targets.float()), want)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(POINTS[name](half, targets.float()), want)


@every
def test_single_precision_is_near_double(name: str) -> None:
    logits, targets = case(soft=True)
    want = POINTS[name](logits, targets)
    got = POINTS[name](logits.float(), targets.float())
    torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-7)


def test_a_wrong_answer_of_ten_thousand_costs_that_much() -> None:
    z = torch.tensor([[1e4, -1e4]])
    torch.testing.assert_close(BCE()(z, torch.tensor([[0.0, 1.0]])), torch.tensor([[1e4, 1e4]]))
    assert BCE()(z, torch.tensor([[1.0, 0.0]])).tolist() == [[0, 0]]
    limit = -(0.95**4) * math.log(0.05)  # the clip bounds what a no can cost
    assert Asymmetric()(z, torch.zeros(1, 2))[0, 0].item() == pytest.approx(limit)


def test_a_right_answer_keeps_its_small_loss() -> None:
    z = torch.tensor([[-20.0, 20.0]])
    want = pytest.approx(math.exp(-20), rel=1e-5)
    assert BCE()(z, torch.tensor([[0.0, 1.0]])).tolist() == [[want, want]]


# --------------------------------------------------------------------------------------- the recipe


@pytest.mark.parametrize(
    ("content", "want"),
    [
        ({"kind": "bce"}, BCE()),
        ({"kind": "asymmetric", "positive": 0}, Asymmetric(positive=0)),
        ({"kind": "asymmetric", "detach": True, "clip": 0}, Asymmetric(clip=0, detach=True)),
        ({"kind": "focal", "alpha": None}, Focal(alpha=None)),
        ({"kind": "focal", "gamma": 1.5}, Focal(1.5)),
    ],
    ids=str,
)
def test_a_recipe_can_say_each(content: dict[str, Any], want: Any) -> None:
    assert TypeAdapter(LabelLoss).validate_python(content) == want


@pytest.mark.parametrize(
    "content", [{"kind": "focal", "clip": 0.1}, {"kind": "bce", "gamma": 2}, {"kind": "hinge"}]
)
def test_a_recipe_cannot_say_what_is_not_there(content: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(LabelLoss).validate_python(content)


@pytest.mark.parametrize(
    ("loss", "options", "complaint"),
    [
        (
            Asymmetric,
            {"negative": -1},
            "`negative` must be non-negative and finite, got -1",
        ),
        (Asymmetric, {"positive": math.inf}, "`positive` must be non-negative and finite, got inf"),
        (Asymmetric, {"clip": 1}, "`clip` must be in [0, 1), got 1"),
        (Asymmetric, {"clip": -0.1}, "`clip` must be in [0, 1), got -0.1"),
        (Focal, {"gamma": math.nan}, "`gamma` must be non-negative and finite, got nan"),
        (Focal, {"alpha": 0}, "`alpha` must be in (0, 1) or null, got 0"),
        (Focal, {"alpha": 1.5}, "`alpha` must be in (0, 1) or null, got 1.5"),
    ],
)
def test_options_out_of_range_are_refused(
    loss: type, options: dict[str, float], complaint: str
) -> None:
    with pytest.raises(ValueError) as caught:
        loss(**options)
    assert str(caught.value) == complaint
