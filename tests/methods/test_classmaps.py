"""Class maps of both networks."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch.nn import functional as F

from references import hidden
from settings import heard, loss, setting
from stillhouse.errors import UserError
from stillhouse.methods.classmaps import CATKD
from stillhouse.models.small import small_resnet


@pytest.mark.parametrize("normalise", [False, True])
def test_the_term_is_what_loops_say_of_the_maps(normalise: bool) -> None:
    at = setting()
    method = CATKD(normalise=normalise).build(at)
    assert method.student_taps == method.teacher_taps == ("stage3",)
    lesson = heard(at, method)
    (term,) = method(lesson).values()
    cells = []
    for network, trace in ((at.student, lesson.student), (at.teacher, lesson.teacher)):
        rows = network.head.weight.tolist()
        images = trace.taps["stage3"].tolist()
        whole = torch.tensor([[hidden.class_map(image, row) for row in rows] for image in images])
        cells.append(F.adaptive_avg_pool2d(whole, 2).flatten(2))
    if normalise:
        cells = [F.normalize(cell, dim=2) for cell in cells]
    torch.testing.assert_close(term.mean(), (cells[0] - cells[1]).square().mean())
    assert term.weight == 15.0


def test_the_student_s_classifier_is_read_as_it_is_and_learns() -> None:
    at = setting()
    method = CATKD().build(at)
    loss(method(heard(at, method))).backward()
    assert at.student.head.weight.grad.abs().sum() > 0
    assert at.student.head.bias.grad is None
    assert list(method.parameters()) == []
    before = float(loss(method(heard(at, method, at.example))).detach())
    with torch.no_grad():
        at.student.head.weight.mul_(3)
    assert float(loss(method(heard(at, method, at.example))).detach()) != before


def test_the_teacher_s_classifier_is_a_copy_that_no_checkpoint_keeps() -> None:
    at = setting()
    method = CATKD().build(at)
    kept = at.teacher.head.weight.detach().clone()
    with torch.no_grad():
        at.teacher.head.weight.zero_()
    torch.testing.assert_close(method.weight, kept)
    assert method.state_dict() == {}


def test_networks_that_see_classes_at_the_same_places_are_at_no_distance() -> None:
    student = small_resnet("small", 5).eval()
    at = setting(student, deepcopy(student))
    method = CATKD().build(at)
    assert float(loss(method(heard(at, method))).detach()) == 0
    with torch.no_grad():
        student.head.bias.add_(3)  # which says nothing of where
    assert float(loss(method(heard(at, method))).detach()) == 0


def test_labels_may_be_left_out() -> None:
    assert CATKD(label_weight=0).build(setting()).label_share == 0


def test_networks_of_other_classes_are_refused() -> None:
    with pytest.raises(UserError, match="the student has 5 classes and the teacher 7"):
        CATKD().build(setting(teacher=small_resnet("medium", 7)))


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="`size` must be at least 1, got 0"):
        CATKD(size=0)
    with pytest.raises(ValueError, match="a normalised map of one cell is constant"):
        CATKD(size=1, normalise=True)
