"""Likelihood of the teacher's stages."""

from __future__ import annotations

import pytest
import torch

from references import hidden
from settings import heard, loss, setting
from stillhouse.methods.information import VID
from stillhouse.models.adapters import align


def test_all_stages_are_expected_with_a_variance_of_their_own() -> None:
    at = setting()
    method = VID().build(at)
    lesson = heard(at, method)
    terms = method(lesson)
    assert list(terms) == ["stage1", "stage2", "stage3"]
    for index, (name, term) in enumerate(terms.items()):
        mean, variance = method.expectations[index](lesson.student.taps[name])
        torch.testing.assert_close(variance, torch.full((16 * 2**index,), 5.0))
        goal = lesson.teacher.taps[name].double().tolist()
        want = hidden.gaussian(mean.double().tolist(), goal, variance.double().tolist())
        assert float(term.total.detach()) == pytest.approx(sum(want).real, rel=1e-4)
        assert term.weight == 1.0


def test_the_student_s_map_is_pooled_before_it_is_read() -> None:
    at = setting()
    method = VID(pairs=(("stage1", "stage3"),)).build(at)
    lesson = heard(at, method)
    (term,) = method(lesson).values()
    student, teacher = align(lesson.student.taps["stage1"], lesson.teacher.taps["stage3"])
    mean, variance = method.expectations[0](student)
    error = (mean - teacher).square() / variance[:, None, None] + variance.log()[:, None, None]
    torch.testing.assert_close(term.mean(), error.mean() / 2)


def test_the_variance_learns() -> None:
    at = setting()
    method = VID(variance=2.0).build(at)
    (group,) = method.groups().values()
    found = {id(p) for p in group}
    loss(method(heard(at, method))).backward()
    for expected in method.expectations:
        assert id(expected.raw) in found
        assert expected.raw.grad.abs().min() > 0


def test_a_variance_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`variance` must be at least 0\.001, got 0"):
        VID(variance=0)
