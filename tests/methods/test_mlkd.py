"""Multi-level distillation against loops over samples and classes."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

import pytest
import torch

from references.plain import kl, softmax
from stillhouse.distributed import combine
from stillhouse.functional.levels import batch_relation, class_relation
from stillhouse.methods.mlkd import MLKD, MultiLevel
from stillhouse.objectives import presets
from stillhouse.types import Lesson, Site
from tiny import lesson, site

B = torch.tensor([[1.0, 2, 3], [0, 1, 0]]).double(), torch.tensor([[3.0, 2, 0], [0, 2, 1]]).double()
TAUS = (4.0, 3.0, 5.0, 2.0, 6.0)


def at(weak: Site, strong: Site) -> Lesson:
    return lesson({"class": weak, "class@strong": strong})


def levels(weak: Site, strong: Site, **options):
    terms = MultiLevel(MLKD(**options))(at(weak, strong))
    return {name.removeprefix("class/"): float(term.mean()) for name, term in terms.items()}


def test_the_atoms_are_those_of_the_paper() -> None:
    p, q = ((z / 4).softmax(1) for z in B)
    assert float(batch_relation(p, q).mean()) == pytest.approx(0.0001752, abs=5e-8)
    assert float(class_relation(p, q).mean()) == pytest.approx(0.0127607, abs=5e-8)
    found = levels(Site(*B), Site(*B), temperatures=(), mask_mode="none")
    assert found["weak"] == pytest.approx(1.0302828, abs=5e-8)


def by_hand(weak: Site, strong: Site, mode: str) -> dict[str, float]:
    s, t = weak.student.tolist(), weak.teacher.tolist()
    a, b = strong.student.tolist(), strong.teacher.tolist()
    n, c = len(s), len(s[0])
    sure = [max(p.real for p in softmax(row)) for row in t]
    mass = [sum(softmax(row)[k].real for row in t) for k in range(c)]
    rows = [float(x <= median(sure)) for x in sure]
    columns = [float(x <= median(mass)) for x in mass]
    if mode == "none":
        rows, columns = [1.0] * n, [1.0] * c
    if mode == "reference_scalar":
        rows, columns = [sum(rows) / n] * n, [sum(columns) / c] * c

    def divergence(student, teacher, tau: float, counts) -> float:
        rows = zip(student, teacher, strict=True)
        each = [kl(softmax(y, tau), softmax(x, tau)).real for x, y in rows]
        return tau**2 * sum(w * d for w, d in zip(counts, each, strict=True)) / n

    found = {"weak": 0.0, "strong": 0.0, "batch": 0.0, "class": 0.0}
    for tau in TAUS:
        found["weak"] += divergence(s, t, tau, rows)
        swapped = mode == "reference_scalar" and tau in (2.0, 6.0)
        found["strong"] += divergence(*((s, t) if swapped else (a, b)), tau, [1.0] * n)
        p, q = ([[x.real for x in softmax(row, tau)] for row in z] for z in (s, t))
        for i in range(n):
            for j in range(n):
                gap = sum(q[i][k] * q[j][k] - p[i][k] * p[j][k] for k in range(c))
                found["batch"] += rows[i] * gap**2 / n
        for k in range(c):
            for m in range(c):
                gap = sum(q[i][k] * q[i][m] - p[i][k] * p[i][m] for i in range(n))
                found["class"] += columns[k] * gap**2 / c
    return found


@pytest.mark.parametrize("mode", ["select", "reference_scalar", "none"])
def test_every_level_is_that_of_loops(mode: str) -> None:
    weak, strong = site(7, 4), site(7, 4)
    assert levels(weak, strong, mask_mode=mode) == pytest.approx(
        by_hand(weak, strong, mode), rel=1e-9
    )


@pytest.mark.parametrize("mode", ["select", "reference_scalar", "none"])
def test_there_is_nothing_to_learn_from_oneself(mode: str) -> None:
    rows = site(6, 4)
    same = Site(rows.student, rows.student.detach())
    loss = combine(MultiLevel(MLKD(mask_mode=mode))(at(same, same)))
    (slope,) = torch.autograd.grad(loss, rows.student)
    assert abs(float(loss)) < 1e-12 and float(slope.abs().max()) < 1e-12


def test_images_without_weight_are_as_if_absent() -> None:
    weak, strong = site(6, 4), site(6, 4)
    weight, there = torch.tensor([1.0, 0, 1, 1, 0, 1]).double(), [0, 2, 3, 5]
    part = (Site(x.student[there], x.teacher[there]) for x in (weak, strong))
    whole = levels(replace(weak, weight=weight), replace(strong, weight=weight))
    assert whole == pytest.approx(levels(*part))


def test_standardised_rows_are_compared_and_relations_stay_raw() -> None:
    weak, strong = site(6, 4), site(6, 4)
    plain, z = levels(weak, strong), levels(weak, strong, base=presets.lskd())
    shifted = replace(weak, student=3 * weak.student + 1)
    again = levels(shifted, strong, base=presets.lskd())
    assert again["weak"] == pytest.approx(z["weak"], rel=1e-6)
    assert z["weak"] != pytest.approx(plain["weak"], rel=1e-3)
    assert again["class"] != pytest.approx(z["class"], rel=1e-3)


def test_everything_is_multiplied_by_the_base_s_weight() -> None:
    for base, weight, share in ((presets.kd(weight=0.9), 0.9, 0.1), (presets.lskd(), 9.0, 0.1)):
        method = MultiLevel(MLKD(base=base))
        terms = method(at(site(), site()))
        assert {term.weight for term in terms.values()} == {weight}
        assert method.label_share == share and method.views == 2


def test_a_batch_of_one_or_none_is_finite() -> None:
    for n in (0, 1):
        rows = site(n, 4)
        loss = combine(MultiLevel(MLKD())(at(rows, rows)))
        (slope,) = torch.autograd.grad(loss, rows.student)
        assert loss.isfinite() and slope.isfinite().all()
