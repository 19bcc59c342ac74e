"""A student's map through the teacher's classifier."""

from __future__ import annotations

import torch
from torch import nn

from settings import heard, loss, setting
from stillhouse.methods.regression import SRRL
from stillhouse.models.small import small_resnet


def test_means_and_answers_are_compared() -> None:
    at = setting()
    method = SRRL(weight=2.0, feature_weight=0.5).build(at)
    lesson = heard(at, method)
    terms = method(lesson)
    ours = method.connector(lesson.student.taps["stage3"]).mean((2, 3))
    theirs = lesson.teacher.taps["stage3"].mean((2, 3))
    torch.testing.assert_close(terms["feature"].mean(), (ours - theirs).square().mean())
    want = (at.teacher.head(ours) - lesson.teacher.out).square().mean()
    torch.testing.assert_close(terms["regression"].mean(), want)
    assert [term.weight for term in terms.values()] == [0.5, 2.0]


def test_the_answer_teaches_the_connector_through_a_frozen_classifier() -> None:
    at = setting()
    method = SRRL().build(at)
    loss({"regression": method(heard(at, method))["regression"]}).backward()
    assert all(p.grad.abs().sum() > 0 for p in method.connector.parameters())
    assert at.teacher.head.weight.grad is None
    names = {name for name, _ in method.named_parameters()}
    assert names == {f"connector.{key}" for key in ("0.weight", "1.weight", "1.bias")}


def test_the_classifier_is_a_copy_that_no_checkpoint_keeps() -> None:
    at = setting()
    method = SRRL().build(at)
    kept = at.teacher.head.weight.detach().clone()
    with torch.no_grad():
        at.teacher.head.weight.zero_()
    torch.testing.assert_close(method.weight, kept)
    assert all(key.startswith("connector.") for key in method.state_dict())


def test_a_classifier_without_bias() -> None:
    teacher = small_resnet("medium", 5)
    teacher.head = nn.Linear(64, 5, bias=False)
    at = setting(teacher=teacher)
    method = SRRL().build(at)
    lesson = heard(at, method)
    ours = method.connector(lesson.student.taps["stage3"]).mean((2, 3))
    want = (teacher.head(ours) - lesson.teacher.out).square().mean()
    torch.testing.assert_close(method(lesson)["regression"].mean(), want)


def test_maps_of_any_two_sizes_have_means() -> None:
    at = setting("tiny", "medium")
    method = SRRL().build(at)
    assert method.student_taps == ("stage2",)
    assert loss(method(heard(at, method))).isfinite()
