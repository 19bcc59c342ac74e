"""Levels of a teacher from all deeper levels of a student."""

from __future__ import annotations

import pytest
import torch

from references import hidden
from settings import heard, loss, setting
from stillhouse.methods.review import ReviewKD
from stillhouse.models.connectors import Fusion


def test_stages_before_the_relu_of_the_teacher_and_the_vectors_are_compared() -> None:
    method = ReviewKD().build(setting())
    assert method.student_taps == ("stage1", "stage2", "stage3", "penultimate")
    assert method.teacher_taps == ("stage1@pre", "stage2@pre", "stage3@pre", "penultimate")
    fusions = [adapter for adapter in method.adapters if isinstance(adapter, Fusion)]
    assert [fusion.attend is not None for fusion in fusions] == [True, True, True, False]


def test_each_level_is_fused_with_what_lies_deeper() -> None:
    at = setting()
    method = ReviewKD(weight=0.6).build(at).eval()
    lesson = heard(at, method)
    terms = method(lesson)
    assert list(terms) == ["penultimate", "stage3", "stage2", "stage1"]
    deeper = None
    for index in (3, 2, 1, 0):
        student = lesson.student.taps[method.student_taps[index]]
        teacher = lesson.teacher.taps[method.teacher_taps[index]]
        if index == 3:
            student, teacher = student[..., None, None], teacher[..., None, None]
        out, deeper = method.adapters[index](student, deeper, teacher.shape[2:])
        want = hidden.hierarchical_context(out.double().tolist(), teacher.double().tolist())
        term = terms[method.student_taps[index]]
        assert float(term.total.detach()) == pytest.approx(sum(want).real, rel=1e-4)
        assert term.weight == 0.6


def test_a_shallow_level_teaches_the_deep_ones() -> None:
    """What is asked of the first stage reaches the vector at the end."""
    at = setting()
    method = ReviewKD().build(at)
    terms = method(heard(at, method))
    terms["stage1"].mean().backward()
    assert all(adapter.reduce[0].weight.grad.abs().sum() > 0 for adapter in method.adapters)
    assert at.student.stage3[0].conv2.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(("width", "used"), [(512, 32), (6, 6)])
def test_levels_are_fused_at_the_width_of_the_deepest_or_less(width: int, used: int) -> None:
    method = ReviewKD(width=width).build(setting())
    assert {adapter.reduce[0].out_channels for adapter in method.adapters} == {used}


def test_a_student_of_other_sizes_is_brought_to_the_teacher_s() -> None:
    at = setting("tiny", "medium")  # 16 and 8 pixels wide, and 8, 4, 2
    method = ReviewKD(pairs=(("stage1", "stage1"), ("stage2", "stage3"))).build(at)
    assert method.student_taps == ("stage1", "stage2")
    assert loss(method(heard(at, method))).isfinite()


def test_one_vector_in_a_last_batch_of_one_is_no_accident() -> None:
    at = setting()
    method = ReviewKD().build(at)
    assert loss(method(heard(at, method, torch.randn(1, 3, 16, 16)))).isfinite()


def test_a_width_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="`width` must be at least 1, got 0"):
        ReviewKD(width=0)
