"""What published losses are to each other, what they ignore, and where others break."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import TypeAdapter
from torch import Tensor

from stillhouse.functional.dice import dice
from stillhouse.objectives import presets
from stillhouse.objectives.activation import Probabilities, Raw
from stillhouse.objectives.distance import MeanSquaredError, Pearson
from stillhouse.objectives.logit import LogitObjective
from stillhouse.objectives.preprocess import Standardize
from stillhouse.objectives.weighting import PowerSum
from stillhouse.types import Site

LABELS = torch.tensor([3, 0, 1, 3, 2, 4])
HOT = torch.tensor([[1, 0, 1, 0, 0], [0, 1, 0, 0, 1], [0, 0, 0, 1, 0]]).repeat(2, 1)
Loss = Callable[[Tensor, Tensor], Tensor]

SOFTMAX: dict[str, Loss] = {
    "kd": presets.kd(),
    "lskd": presets.lskd(),
    "ttm": presets.ttm(),
    "wttm": presets.wttm(),
    "ats": lambda s, t: presets.ats()(s, t, LABELS),
    "dkd": lambda s, t: presets.dkd()(s, t, LABELS),
    "dist": presets.dist(),
    "ps": lambda s, t: presets.ps()(s, t, HOT),
}
BINARY: dict[str, Loss] = {
    "mld": presets.mld(),
    "tld": presets.tld(),
    "tld_dist": presets.tld_dist(),
    "bcd": presets.bcd(),
    "mse": presets.mse(),
}


def each(losses: dict[str, Loss]) -> Any:
    return pytest.mark.parametrize("loss", losses.values(), ids=list(losses))


def pair(n: int = 6, c: int = 5) -> tuple[Tensor, Tensor]:
    student, teacher = 2 * torch.randn(2, n, c, dtype=torch.double)
    return student.requires_grad_(), teacher


def maps(n: int = 3, c: int = 4) -> tuple[Tensor, Tensor]:
    student, teacher = torch.randn(2, n, c, 3, 2, dtype=torch.double)
    return student.requires_grad_(), teacher


def slope(loss: Tensor, by: Tensor) -> Tensor:
    return torch.autograd.grad(loss, by)[0]


def close(got: Tensor, want: Tensor | float, rtol: float = 1e-9, atol: float = 1e-10) -> None:
    want = torch.as_tensor(want, dtype=got.dtype)
    torch.testing.assert_close(got.detach(), want.detach(), rtol=rtol, atol=atol)


def entropy(logits: Tensor, tau: float) -> Tensor:
    """The mean entropy of softened rows."""
    p = (logits / tau).softmax(1)
    return -(p * p.log()).sum(1).mean()


def binary_entropy(logits: Tensor, tau: float) -> Tensor:
    p = (logits / tau).sigmoid()
    return -(p * p.log() + (1 - p) * (1 - p).log()).sum(1).mean()


# ------------------------------------------------------------------------------ one loss in another


def test_kd_is_the_two_parts_of_dkd_with_the_teacher_s_doubt_for_beta() -> None:
    student, teacher = pair()
    parts = presets.dkd(temperature=3).objectives()
    rest_weight = 1 - (teacher / 3).softmax(1).gather(1, LABELS[:, None]).squeeze(1)
    target = parts["target"](Site(student, teacher, LABELS)).mean()
    rest = parts["rest"](Site(student, teacher, LABELS, rest_weight)).total / len(LABELS)
    close(target + rest, presets.kd(temperature=3)(student, teacher), rtol=1e-12)


def test_dkd_of_two_classes_has_no_second_part() -> None:
    student, teacher = pair(c=2)
    labels = LABELS % 2
    assert presets.dkd(alpha=0)(student, teacher, labels) == 0
    close(presets.dkd()(student, teacher, labels), presets.kd()(student, teacher))


def test_ttm_at_power_one_is_kd_at_temperature_one() -> None:
    student, teacher = pair()
    kd = presets.kd(temperature=1)(student, teacher)
    close(presets.ttm(gamma=1)(student, teacher), kd)
    close(presets.wttm(gamma=1)(student, teacher), kd)


def test_the_weight_of_wttm_lies_between_one_and_that_of_a_flat_teacher() -> None:
    _, teacher = pair()
    weight = PowerSum(0.3)(teacher, teacher)
    assert (weight >= 1).all()
    assert (weight <= 5**0.7).all()
    close(PowerSum(0.3)(teacher, torch.zeros(1, 5))[0].double(), 5**0.7, rtol=1e-6)


def test_ats_of_one_temperature_is_kd_and_the_teacher_s_entropy() -> None:
    student, teacher = pair()
    ats = presets.ats(labelled=3, others=3, temperature=3, weight=1)(student, teacher, LABELS)
    kd = presets.kd(temperature=3)(student, teacher)
    close(ats, kd + 9 * entropy(teacher, 3))


def test_mld_is_tld_at_temperature_one_without_the_teacher_s_entropy() -> None:
    student, teacher = pair()
    mld, tld = presets.mld()(student, teacher), presets.tld(temperature=1)(student, teacher)
    close(mld, tld - binary_entropy(teacher, 1))
    close(slope(mld, student), slope(tld, student))
    close(presets.tld(temperature=1, subtract_entropy=True)(student, teacher), mld)


def test_bcd_without_a_power_is_tld_at_temperature_one() -> None:
    student, teacher = pair()
    bcd, tld = presets.bcd(beta=0)(student, teacher), presets.tld(temperature=1)(student, teacher)
    close(bcd, tld)
    close(slope(bcd, student), slope(tld, student))


def test_mld_of_one_class_is_kd_of_that_class_against_zero() -> None:
    student, teacher = pair(c=1)
    two = (torch.cat((z, torch.zeros_like(z)), 1) for z in (student, teacher))
    close(presets.mld()(student, teacher), presets.kd(temperature=1)(*two))


def test_ps_of_one_positive_is_kd_at_temperature_one() -> None:
    student, teacher = pair()
    kd = presets.kd(temperature=1)(student, teacher)
    close(presets.ps()(student, teacher, LABELS), kd)
    close(presets.ps()(student, teacher, F.one_hot(LABELS, 5)), kd)


def test_lskd_is_kd_with_a_temperature_for_each_row_and_network() -> None:
    student, teacher = pair()
    s, t = (z / z.std(1, keepdim=True) for z in (student, teacher))
    lskd = presets.lskd(temperature=2, weight=1)(student, teacher)
    close(lskd, presets.kd(temperature=2)(s, t), rtol=1e-6)


def test_squares_of_standardised_rows_are_one_minus_their_correlation() -> None:
    student, teacher = pair()
    squares = LogitObjective(Standardize(ddof=1, eps=1e-12), Raw(), MeanSquaredError())
    pearson = LogitObjective(activation=Raw(), distance=Pearson())
    at = Site(student, teacher)
    close(5 / (2 * 4) * squares(at).mean(), pearson(at).mean())


def test_correlation_of_logits_is_the_cosine_of_centred_logits() -> None:
    student, teacher = pair()
    point = LogitObjective(activation=Raw(), distance=Pearson())
    s, t = (z - z.mean(1, keepdim=True) for z in (student, teacher))
    close(point(Site(student, teacher)).mean(), 1 - F.cosine_similarity(s, t).mean())


def test_cwd_is_kd_whose_rows_are_channels() -> None:
    student, teacher = maps()
    flat = (x.reshape(12, 6) for x in (student, teacher))
    close(presets.cwd(temperature=2, weight=1)(student, teacher), presets.kd(2.0)(*flat))


def test_cwd_of_one_pixel_is_zero() -> None:
    student, teacher = torch.randn(2, 3, 4, 1, 1)
    assert presets.cwd()(student, teacher) == 0


def test_pkd_is_one_minus_the_mean_correlation_of_channels() -> None:
    student, teacher = maps()
    s, t = (x.transpose(0, 1).reshape(4, -1) for x in (student.detach(), teacher))
    rho = torch.stack(
        [torch.corrcoef(torch.stack((a, b)))[0, 1] for a, b in zip(s, t, strict=True)]
    )
    n = s.shape[1]
    pkd = presets.pkd(weight=1)(student, teacher)
    close(pkd, (n - 1) / n * (1 - rho.mean()), rtol=1e-5)


# ------------------------------------------------------------------------------------------- limits


def test_kd_of_high_temperature_is_regression_of_centred_logits() -> None:
    student, teacher = pair()
    centred = (student - teacher) - (student - teacher).mean(1, keepdim=True)
    want = centred.square().sum(1).mean() / (2 * 5)
    close(presets.kd(temperature=1e4)(student, teacher), want, rtol=1e-3)


def test_tld_of_high_temperature_is_regression_of_logits() -> None:
    student, teacher = pair()
    want = (student - teacher).square().sum(1).mean() / 8
    tld = presets.tld(temperature=1e4, subtract_entropy=True)
    close(tld(student, teacher), want, rtol=1e-3)


def test_tld_of_low_temperature_counts_only_signs_that_differ() -> None:
    student, teacher = pair()
    wrong = student.sign() != teacher.sign()
    want = (student.abs() * wrong).sum(1).mean()
    assert wrong.any()
    close(presets.tld(temperature=1e-4)(student, teacher) / 1e-4, want, rtol=1e-3)


@pytest.mark.parametrize("tau", [0.25, 0.5, 0.75, 1.0, 4.0])
def test_the_gradient_of_tld_is_the_difference_of_responses(tau: float) -> None:
    student, teacher = pair()
    loss = presets.tld(temperature=tau)(student, teacher)
    want = tau * ((student / tau).sigmoid() - (teacher / tau).sigmoid()) / 6
    close(slope(loss, student), want)


def test_the_gradient_of_kd_is_the_difference_of_probabilities() -> None:
    student, teacher = pair()
    got = slope(presets.kd(temperature=3)(student, teacher), student)
    close(got, 3 * ((student / 3).softmax(1) - (teacher / 3).softmax(1)) / 6)
    close(got.sum(1), torch.zeros(6))


def test_bcd_has_a_kink_with_no_slope_where_both_agree() -> None:
    student, teacher = pair()
    same = teacher.clone().requires_grad_()
    for beta in (0.5, 1.0, 2.0):
        loss = presets.bcd(beta=beta)(same, teacher)
        assert loss == 0
        assert (slope(loss, same) == 0).all()
    toward = slope(presets.bcd()(student, teacher), student).sign()
    assert torch.equal(toward, (student - teacher).sign())


# --------------------------------------------------------------------------------------- invariance


@each(SOFTMAX)
def test_softmax_losses_ignore_a_shift_of_the_student_s_row(loss: Loss) -> None:
    student, teacher = pair()
    shift = torch.randn(6, 1, dtype=torch.double)
    close(loss(student + shift, teacher), loss(student, teacher))
    close(loss(teacher + shift, teacher), loss(teacher, teacher))


@each(SOFTMAX)
def test_the_gradient_of_softmax_losses_sums_to_nothing(loss: Loss) -> None:
    student, teacher = pair()
    close(slope(loss(student, teacher), student).sum(1), torch.zeros(6))


@each(BINARY)
def test_losses_of_single_classes_heed_a_shift(loss: Loss) -> None:
    student, teacher = pair()
    assert not torch.isclose(loss(student + 1.0, teacher), loss(student, teacher))


def test_ats_heeds_a_shift_of_the_teacher_and_kd_does_not() -> None:
    student, teacher = pair()
    ats = SOFTMAX["ats"]
    assert not torch.isclose(ats(student, teacher + 1.0), ats(student, teacher))
    close(presets.kd()(student, teacher + 1.0), presets.kd()(student, teacher))


def test_lskd_ignores_positive_affine_maps_of_rows_and_heeds_negative_ones() -> None:
    student, teacher = pair()
    loss = presets.lskd()(student, teacher)
    factor, shift = torch.rand(6, 1) + 0.5, torch.randn(6, 1)
    close(presets.lskd()(student * factor + shift, teacher), loss, rtol=1e-6)
    close(presets.lskd()(student, teacher * factor + shift), loss, rtol=1e-6)
    assert not torch.isclose(presets.lskd()(-student, teacher), loss)
    assert presets.lskd()(teacher * factor + shift, teacher) < 1e-9


def test_the_gradient_of_lskd_leaves_level_and_scale_of_a_row_alone() -> None:
    student, teacher = pair()
    got = slope(presets.lskd()(student, teacher), student)
    close(got.sum(1), torch.zeros(6))
    close((got * student.detach()).sum(1), torch.zeros(6), atol=1e-5)


def test_dist_ignores_affine_maps_of_probabilities() -> None:
    """Of rows within a row, of columns within a class; on logits it does not."""
    student, teacher = pair()
    inter = LogitObjective(activation=Raw(), distance=Pearson())
    intra = LogitObjective(activation=Raw(across="batch"), distance=Pearson())
    p, q = student.softmax(1), teacher.softmax(1)
    m, b = torch.rand(6, 1) + 0.5, torch.randn(6, 1)
    close(inter(Site(m * p + b, q)).mean(), inter(Site(p, q)).mean())
    m, b = torch.rand(1, 5) + 0.5, torch.randn(1, 5)
    close(intra(Site(m * p + b, q)).mean(), intra(Site(p, q)).mean())
    assert not torch.isclose(presets.dist()(2 * student, teacher), presets.dist()(student, teacher))


def test_dist_of_probabilities_turned_round_is_two() -> None:
    student, _ = pair()
    for across in ("row", "batch"):
        point = LogitObjective(activation=Raw(across=across), distance=Pearson())
        close(point(Site(-student, student)).mean(), 2.0)


@pytest.mark.parametrize(
    ("preset", "axes"),
    [
        (presets.pkd(), (0, 2, 3)),  # what a channel's level and scale are shared by
        (presets.channel_relation(), (1,)),
        (presets.spatial_relation(), (1, 2, 3)),
    ],
    ids=["pkd", "channel_relation", "spatial_relation"],
)
def test_feature_relations_ignore_positive_affine_maps(preset: Any, axes: tuple[int, ...]) -> None:
    student, teacher = maps()
    shape = [1 if axis in axes else length for axis, length in enumerate(student.shape)]
    factor, shift = torch.rand(shape).double() + 0.5, torch.randn(shape).double()
    close(preset(student * factor + shift, teacher), preset(student, teacher), rtol=1e-5)


def test_cwd_ignores_a_shift_of_each_channel() -> None:
    student, teacher = maps()
    shift = torch.randn(3, 4, 1, 1)
    close(presets.cwd()(student + shift, teacher), presets.cwd()(student, teacher))


def test_losses_of_rows_are_the_mean_of_their_halves_and_relations_are_not() -> None:
    student, teacher = pair()
    halves = [(student[rows], teacher[rows]) for rows in (slice(3), slice(3, 6))]
    for loss in (presets.kd(), presets.lskd(), presets.mld(), presets.bcd(), presets.mse()):
        close(loss(student, teacher), sum(loss(*half) for half in halves) / 2)
    intra = LogitObjective(activation=Probabilities(across="batch"), distance=Pearson())
    apart = sum(intra(Site(*half)).mean() for half in halves) / 2
    assert not torch.isclose(intra(Site(student, teacher)).mean(), apart)


# ------------------------------------------------------------------------------- where others break


def run(loss: Loss, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    leaf = student.clone().requires_grad_()
    value = loss(leaf, teacher)
    return value.detach(), slope(value, leaf)


def agree_with_double(loss: Loss, student: Tensor, teacher: Tensor, rtol: float = 1e-5) -> None:
    value, got = run(loss, student, teacher)
    exact, want = run(loss, student.double(), teacher.double())
    assert exact.isfinite()
    close(value.double(), exact, rtol=rtol)
    close(got.double(), want, rtol=1e-3, atol=1e-5 * float(want.abs().max()))


@pytest.mark.parametrize("margin", [70.0, 371.0, 416.0, 1000.0, 1e4])
def test_dkd_is_exact_at_any_margin(margin: float) -> None:
    """log(softmax) of the others underflows where one class is far ahead."""
    student, teacher = torch.randn(2, 6, 5)
    ahead = F.one_hot(LABELS, 5) * margin
    dkd = SOFTMAX["dkd"]
    agree_with_double(dkd, student + ahead, teacher)
    agree_with_double(dkd, student, teacher + ahead)
    agree_with_double(dkd, student - ahead, teacher + ahead)


@pytest.mark.parametrize("level", [8.5, 16.75, 20.0, 100.0, 1e4])
def test_mld_is_exact_at_saturated_logits(level: float) -> None:
    """1 - 1e-8 is 1 in single precision, so a clamp of probabilities holds nothing."""
    sign = torch.randn(6, 5).sign()
    for student, teacher in ((level * sign, torch.randn(6, 5)), (level * sign, -level * sign)):
        agree_with_double(presets.mld(), student, teacher)
        agree_with_double(presets.mld(), teacher, student)
    wrong, got = run(presets.mld(), level * sign, -level * sign)
    assert wrong > 0
    close(got.abs(), torch.full((6, 5), 1 / 6), rtol=1e-3)  # saturated, wrong, and still pulled


def test_ps_without_positives_or_without_negatives_is_zero() -> None:
    student, teacher = pair()
    for hot in (torch.zeros(6, 5), torch.ones(6, 5)):
        loss = presets.ps()(student, teacher, hot)
        assert loss == 0
        assert (slope(loss, student) == 0).all()


def masked(columns: list[int]) -> tuple[Tensor, Tensor]:
    """Two networks that both rule some classes out."""
    student, teacher = (z.detach().clone() for z in pair())
    student[:, columns], teacher[:, columns] = -math.inf, -math.inf
    return student.requires_grad_(), teacher


def test_classes_that_both_rule_out_are_as_if_absent() -> None:
    student, teacher = masked([1, 4])
    there = [0, 2, 3]
    few = student.detach()[:, there].clone().requires_grad_()
    loss, want = presets.kd()(student, teacher), presets.kd()(few, teacher[:, there])
    close(loss, want, rtol=1e-12)
    close(slope(loss, student)[:, there], slope(want, few))


@pytest.mark.parametrize("kind", ["kl", "reverse_kl", "cross_entropy", "jensen_shannon"])
def test_no_divergence_breaks_on_classes_that_both_rule_out(kind: str) -> None:
    student, teacher = masked([1])
    recipe = {"distance": {"kind": kind}}
    point = TypeAdapter(LogitObjective).validate_python(recipe)
    term = point(Site(student, teacher))
    assert term.total.isfinite()
    assert slope(term.total, student).isfinite().all()


@each(SOFTMAX | BINARY)
def test_a_nan_in_the_teacher_is_seen_in_the_loss(loss: Loss) -> None:
    student, teacher = pair()
    teacher[2, 1] = math.nan
    assert loss(student, teacher).isnan()


@each(SOFTMAX | BINARY)
@pytest.mark.parametrize("wrong", [math.inf, -math.inf])
def test_no_loss_is_finite_beside_a_gradient_that_is_not(loss: Loss, wrong: float) -> None:
    student, teacher = pair()
    teacher[2, 1] = wrong
    value, got = run(loss, student.detach(), teacher)
    assert got.isfinite().all() or not value.isfinite()


def test_bcd_with_a_power_below_one_has_a_slope_where_both_agree() -> None:
    student, teacher = pair()
    mixed = torch.where(torch.eye(6, 5).bool(), teacher, student.detach()).requires_grad_()
    assert slope(presets.bcd(beta=0.5)(mixed, teacher), mixed).isfinite().all()


@pytest.mark.parametrize("loss", [presets.lskd(), presets.dist()], ids=["lskd", "dist"])
@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_a_student_row_without_spread_gets_no_gradient(loss: Loss, noise: float) -> None:
    """Published code divides rounding noise by eps: gradients of 1e5 and more."""
    student, teacher = torch.randn(2, 6, 5)
    student[2] = 3.0 + noise * torch.randn(5)
    value, got = run(loss, student, teacher)
    assert value.isfinite()
    assert got.abs().max() < 10


def test_dist_in_clamp_mode_does_not_swallow_tiny_probabilities() -> None:
    """Nearly uniform rows of 1000 classes: an added eps makes equal predictions look unlike."""
    logits = 0.01 * torch.randn(64, 1000, dtype=torch.double)
    assert presets.dist()(logits, logits) < 1e-9
    assert presets.dist(variant="reference")(logits, logits) > 0.5


def test_dice_of_a_hard_teacher_is_the_label_loss_of_masks() -> None:
    """Up to what that adds to the squares; equal masks have no loss, an empty one neither."""
    draw = torch.Generator().manual_seed(5)
    logits = 3 * torch.randn(4, 50, dtype=torch.double, generator=draw)
    inside = torch.rand(4, 50, generator=draw) < 0.3
    sure = torch.where(inside, 60.0, -60.0).double()
    found = presets.dice()(logits, sure)
    torch.testing.assert_close(found, dice(logits, inside).mean(), rtol=2e-4, atol=0)
    assert float(presets.dice()(logits, logits)) == 0
    nothing = torch.full((1, 5), -80.0, dtype=torch.double)
    assert float(presets.dice()(nothing, nothing)) == 0
