"""The teacher's own loss: its value, and that it reaches the teacher alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from references.plain import correlation, softmax
from stillhouse.methods.acclimation import Acclimating, Acclimation
from stillhouse.types import Site
from tiny import lesson, site


def learning(rows: Site):
    return lesson({"class@teacher": rows})


def test_the_example_of_the_card() -> None:
    student, teacher = (
        torch.tensor([p], dtype=torch.double).log()
        for p in ([0.5, 0.3, 0.15, 0.05], [0.7, 0.05, 0.15, 0.10])
    )
    terms = Acclimating(Acclimation())(learning(Site(student, teacher, torch.tensor([0]))))
    assert float(terms["class/acclimation"].mean()) == pytest.approx(1.5960391, rel=1e-6)


def test_its_gradient_reaches_the_teacher_alone() -> None:
    rows = site(6, 5)
    teacher = rows.teacher.clone().requires_grad_()
    terms = Acclimating(Acclimation())(learning(replace(rows, teacher=teacher)))
    terms["class/acclimation"].mean().backward()
    assert teacher.grad.abs().sum() > 0 and rows.student.grad is None


def rest(row: list[float], label: int) -> list[complex]:
    return [p for c, p in enumerate(softmax(row)) if c != label]


@pytest.mark.parametrize("classes", ["rest", "all"])
def test_correlations_are_those_of_loops(classes: str) -> None:
    rows = site(6, 5)
    each = []
    parts = (x.tolist() for x in (rows.student, rows.teacher, rows.target))
    for s, t, y in zip(*parts, strict=True):
        pair = (rest(s, y), rest(t, y)) if classes == "rest" else (softmax(s), softmax(t))
        each.append(1 - correlation(*pair).real)
    terms = Acclimating(Acclimation(classes=classes))(learning(rows))
    assert float(terms["class/acclimation"].mean()) == pytest.approx(sum(each) / 6)


def test_divergences_are_of_the_teacher_to_the_student() -> None:
    rows = site(6, 5)
    terms = Acclimating(Acclimation(distance="kl", classes="all"))(learning(rows))
    want = F.kl_div(rows.teacher.log_softmax(1), rows.student.softmax(1), reduction="batchmean")
    torch.testing.assert_close(terms["class/acclimation"].mean(), want.detach())


def test_a_mixed_image_counts_by_its_larger_label() -> None:
    rows = site(6, 5)
    shares = 0.7 * F.one_hot(rows.target, 5) + 0.3 * F.one_hot((rows.target + 1) % 5, 5)
    method = Acclimating(Acclimation())
    mixed, plain = (
        method(learning(replace(rows, target=target)))["class/acclimation"].mean()
        for target in (shares.double(), rows.target)
    )
    torch.testing.assert_close(mixed, plain)


def test_without_a_teacher_that_learns_there_is_an_error() -> None:
    method = Acclimating(Acclimation())
    assert method.sites == ("class@teacher",) and method.moves_teacher
    with pytest.raises(KeyError, match="class@teacher"):
        method(lesson({"class": site()}))


def test_a_rate_must_be_above_zero() -> None:
    with pytest.raises(ValueError, match="`rate` must be positive, got"):
        Acclimation(rate=0)
