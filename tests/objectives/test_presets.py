"""Published losses against their formulas, which `references` has in plain loops.

Gradients of the formulas are exact too: `references.plain` takes them with complex numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from references import binary, feature, plain, relation, softmax
from stillhouse.objectives import presets
from stillhouse.objectives.presets import FeaturePreset
from stillhouse.types import Clock

Formula = Callable[[Any, Any, Any, Any], complex]
LABELS = [3, 0, 1, 3, 2]
HOT = [[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 1], [1, 1, 1, 1]]
WEIGHT = [1.0, 0.0, 0.5, 2.0, 0.25]


class Case(NamedTuple):
    """A preset, and its formula of (student, teacher, target, weight)."""

    preset: Any
    formula: Formula
    target: Any = None


def standardized(base: Any, tau: float = 2.0, **options: Any) -> Any:
    return presets.lskd(temperature=tau, weight=9.0, base=base, **options)


def z(rows: Any, ddof: int = 1) -> list[list[complex]]:
    return [plain.standardized(row, ddof, 1e-7) for row in rows]


def over(rows: Any, tau: float) -> list[list[complex]]:
    return [[value / tau for value in row] for row in rows]


LOGIT = {
    "kd": Case(
        presets.kd(temperature=3.0, weight=0.7),
        lambda s, t, y, w: 0.7 * softmax.kd(s, t, w, tau=3.0),
    ),
    "ttm": Case(
        presets.ttm(gamma=0.3, beta=2.0),
        lambda s, t, y, w: 2 * softmax.ttm(s, t, w, gamma=0.3),
    ),
    "wttm": Case(
        presets.wttm(gamma=0.3, beta=2.0),
        lambda s, t, y, w: 2 * softmax.wttm(s, t, w, gamma=0.3),
    ),
    "ats": Case(
        presets.ats(labelled=3.0, others=1.5, temperature=2.0, weight=0.6),
        lambda s, t, y, w: 0.6 * softmax.ats(s, t, y, w, labelled=3.0, others=1.5, tau=2.0),
        LABELS,
    ),
    "dkd": Case(
        presets.dkd(temperature=3.0, alpha=1.5, beta=6.0),
        lambda s, t, y, w: softmax.dkd(s, t, y, w, tau=3.0, alpha=1.5, beta=6.0),
        LABELS,
    ),
    "mse": Case(presets.mse(weight=2.0), lambda s, t, y, w: 2 * softmax.mse(s, t, w)),
    "dist paper": Case(
        presets.dist(temperature=2.0, beta=1.5, gamma=2.5),
        lambda s, t, y, w: relation.dist(s, t, w, tau=2.0, beta=1.5, gamma=2.5),
    ),
    "dist reference": Case(
        presets.dist(temperature=2.0, variant="reference"),
        lambda s, t, y, w: relation.dist(s, t, w, tau=2.0, reference=True),
    ),
    "tld_dist paper": Case(
        presets.tld_dist(temperature=0.75, gamma=0.5),
        lambda s, t, y, w: relation.tld_dist(s, t, w, tau=0.75, gamma=0.5),
    ),
    "tld_dist reference": Case(
        presets.tld_dist(variant="reference"),
        lambda s, t, y, w: relation.tld_dist(s, t, w, reference=True),
    ),
    "mld": Case(presets.mld(weight=10.0), lambda s, t, y, w: 10 * binary.mld(s, t, w)),
    "tld": Case(
        presets.tld(temperature=0.75, weight=2.0),
        lambda s, t, y, w: 2 * binary.tld(s, t, w, tau=0.75),
    ),
    "tld without entropy": Case(
        presets.tld(temperature=2.0, subtract_entropy=True),
        lambda s, t, y, w: binary.tld(s, t, w, tau=2.0, subtract_entropy=True),
    ),
    "bcd": Case(presets.bcd(weight=3.0), lambda s, t, y, w: 3 * binary.bcd(s, t, w)),
    "bcd detached": Case(
        presets.bcd(detach=True), lambda s, t, y, w: binary.bcd(s, t, w, detach=True)
    ),
    "bcd half": Case(presets.bcd(beta=0.5), lambda s, t, y, w: binary.bcd(s, t, w, beta=0.5)),
    "bcd twice": Case(
        presets.bcd(beta=2.0, detach=True),
        lambda s, t, y, w: binary.bcd(s, t, w, beta=2.0, detach=True),
    ),
    "dice": Case(presets.dice(weight=3.0), lambda s, t, y, w: 3 * binary.dice(s, t, w)),
    "ps": Case(presets.ps(weight=2.0), lambda s, t, y, w: 2 * binary.ps(s, t, y, w), HOT),
    "lskd reference": Case(
        standardized(presets.kd()),
        lambda s, t, y, w: 9 * softmax.kd(z(s), z(t), w, tau=2.0),
    ),
    "lskd paper": Case(
        standardized(presets.kd(), variant="paper"),
        lambda s, t, y, w: 9 * softmax.kd(z(s, 0), z(t, 0), w, tau=2.0),
    ),
    "lskd over dkd": Case(
        standardized(presets.dkd(alpha=1.0, beta=2.0), tau=3.0),
        lambda s, t, y, w: 9 * softmax.dkd(z(s), z(t), y, w, tau=3.0, alpha=1.0, beta=2.0),
        LABELS,
    ),
    "lskd over dist": Case(
        standardized(presets.dist()),
        lambda s, t, y, w: 9 * relation.dist(z(s), z(t), w, tau=2.0),
    ),
    "lskd over dist reference": Case(
        standardized(presets.dist(variant="reference"), variant="paper"),
        lambda s, t, y, w: 9 * relation.dist(z(s, 0), z(t, 0), w, tau=2.0, reference=True),
    ),
    "lskd over ttm": Case(
        standardized(presets.ttm(gamma=0.3, beta=0.5)),
        lambda s, t, y, w: 9 * 0.5 * 2**2 * softmax.ttm(over(z(s), 2), over(z(t), 2), w, 0.3),
    ),
    "lskd over wttm": Case(
        standardized(presets.wttm(gamma=0.3)),
        # What a row counts is read off the teacher as it is: only what is compared is standardised.
        lambda s, t, y, w: 9 * 4 * softmax.wttm(over(z(s), 2), over(z(t), 2), w, 0.3, counted=t),
    ),
    "lskd over ats": Case(
        standardized(presets.ats(labelled=3.0, others=1.5, temperature=1.0, weight=0.5)),
        lambda s, t, y, w: 9 * 0.5 * softmax.ats(z(s), z(t), y, w, 3.0, 1.5, tau=2.0),
        LABELS,
    ),
}
FEATURE = {
    "cwd": Case(
        presets.cwd(temperature=2.0, weight=3.0),
        lambda s, t, y, w: 3 * feature.cwd(s, t, w, tau=2.0),
    ),
    "mimic": Case(presets.mimic(weight=2.0), lambda s, t, y, w: 2 * feature.mimic(s, t, w)),
    "pkd": Case(presets.pkd(weight=6.0), lambda s, t, y, w: 6 * feature.pkd(s, t, w)),
    "channel_relation": Case(
        presets.channel_relation(weight=2.0),
        lambda s, t, y, w: 2 * feature.channel_relation(s, t, w),
    ),
    "spatial_relation": Case(
        presets.spatial_relation(weight=2.0),
        lambda s, t, y, w: 2 * feature.spatial_relation(s, t, w),
    ),
}
CASES = LOGIT | FEATURE
every_case = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


def inputs(case: Case) -> tuple[Tensor, Tensor]:
    shape = (5, 3, 2, 3) if isinstance(case.preset, FeaturePreset) else (5, 4)
    student, teacher = 2 * torch.randn(2, *shape, dtype=torch.double)
    return student.requires_grad_(), teacher


def ask(case: Case, student: Tensor, teacher: Tensor, weight: Tensor | None) -> Tensor:
    target = None if case.target is None else torch.tensor(case.target)
    loss: Tensor = case.preset(student, teacher, target, weight)
    return loss


def test_every_preset_has_a_formula() -> None:
    assert {type(case.preset) for case in CASES.values()} == set(presets.catalogue().values())


@every_case
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["unweighted", "weighted"])
def test_a_preset_is_its_formula(case: Case, weight: list[float] | None) -> None:
    student, teacher = inputs(case)
    loss = ask(case, student, teacher, None if weight is None else torch.tensor(weight).double())
    loss.backward()
    fixed = teacher.tolist()

    def formula(rows: Any) -> complex:
        return case.formula(rows, fixed, case.target, weight)

    want = torch.tensor(formula(student.tolist()).real, dtype=torch.double)
    slope = torch.from_numpy(plain.gradient(formula, student.tolist()))
    torch.testing.assert_close(loss.detach(), want, rtol=1e-9, atol=0)
    torch.testing.assert_close(student.grad, slope, rtol=1e-9, atol=1e-10)


@every_case
def test_a_preset_of_no_rows_is_an_exact_zero(case: Case) -> None:
    student, teacher = (x[:0] for x in inputs(case))
    target = None if case.target is None else torch.tensor(case.target)[:0]
    leaf = student.detach().requires_grad_()
    loss = case.preset(leaf, teacher, target)
    loss.backward()
    assert loss == 0
    assert leaf.grad is not None


@every_case
def test_a_preset_of_rows_that_do_not_count_is_an_exact_zero(case: Case) -> None:
    student, teacher = inputs(case)
    loss = ask(case, student, teacher, torch.zeros(5, dtype=torch.double))
    loss.backward()
    assert loss == 0
    assert student.grad is not None
    assert (student.grad == 0).all()


@every_case
def test_a_preset_is_the_same_under_autocast(case: Case) -> None:
    student, teacher = (x.detach().float() for x in inputs(case))
    loss = ask(case, student, teacher, None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(ask(case, student, teacher, None), loss)


@pytest.mark.parametrize("case", FEATURE.values(), ids=list(FEATURE))
def test_flat_maps_stay_finite(case: Case) -> None:
    flat, other = torch.zeros(3, 4, 2, 2), torch.randn(3, 4, 2, 2)
    for student, teacher in ((flat, other), (other, flat), (flat, flat), (1e4 * other, other)):
        leaf = student.clone().requires_grad_()
        loss = case.preset(leaf, teacher)
        loss.backward()
        assert loss.isfinite()
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


# --------------------------------------------------------------------------------- beside the value


def test_a_warm_up_is_the_share_of_epochs_begun() -> None:
    rises = [
        presets.dkd(warmup=4).ramp_factor(Clock(step, 60, 10)) for step in (0, 9, 10, 29, 30, 59)
    ]
    assert rises == [0.25, 0.25, 0.5, 0.75, 1.0, 1.0]
    assert presets.dkd().ramp_factor(Clock(0, 60, 10)) == 1.0


def test_lskd_keeps_the_warm_up_of_its_base() -> None:
    start = Clock(0, 60, 10)
    base = presets.dkd(warmup=20)
    assert presets.lskd(base=base).ramp_factor(start) == 1 / 20
    assert presets.lskd(base=base, warmup=2).ramp_factor(start) == 1 / 2
    assert presets.lskd().ramp_factor(start) == 1.0


def test_labels_count_what_the_paper_says_or_what_the_user_says() -> None:
    assert presets.kd().label_share == 0.1
    assert presets.dkd().label_share == 1.0
    assert presets.ats().label_share == 0.5
    assert presets.kd(label_weight=0.0).label_share == 0.0
    assert presets.lskd().label_share == 0.1
    assert presets.lskd(base=presets.dkd()).label_share == 1.0
    assert presets.lskd(base=presets.kd(label_weight=0.3)).label_share == 0.3
    assert presets.lskd(base=presets.kd(label_weight=0.3), label_weight=0.7).label_share == 0.7
