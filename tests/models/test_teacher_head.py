"""A student that answers through its teacher's classifier."""

from __future__ import annotations

import pytest
import torch

from stillhouse.errors import UserError
from stillhouse.methods.setting import Setting
from stillhouse.methods.simkd import SimKD
from stillhouse.models import cost, zoo
from stillhouse.models.taps import Tapped
from stillhouse.types import Clock
from tiny import lesson

EXAMPLE = torch.zeros(2, 1, 16, 32)


def setting(student: str = "stillhouse/small", teacher: str = "stillhouse/medium") -> Setting:
    torch.manual_seed(0)
    return Setting(zoo.create(student, 10, 1).eval(), zoo.create(teacher, 10, 1).eval(), EXAMPLE)


def test_the_answer_is_the_teacher_s_classifier_on_the_projected_map() -> None:
    at = setting()
    student = SimKD().reshape(at).eval()
    images = torch.randn(4, 1, 16, 32)
    projected = student.projector(
        at.student.stage3(at.student.stage2(at.student.stage1(at.student.stem(images))))
    )
    torch.testing.assert_close(student(images), at.teacher.head(projected.mean((2, 3))))
    assert torch.equal(student.head.weight, at.teacher.head.weight)


def test_its_parameters_are_trunk_projector_and_the_teacher_s_head() -> None:
    at = setting()
    student = SimKD().reshape(at)
    trunk = cost.parameters(at.student) - cost.parameters(at.student.head)
    want = trunk + cost.parameters(student.projector) + cost.parameters(at.teacher.head)
    assert cost.parameters(student) == want
    widths = (32, 64)  # of the last maps: 1x1 to half the teacher's, 3x3, 1x1, and their norms
    middle = widths[1] // 2
    convolutions = widths[0] * middle + 9 * middle**2 + middle * widths[1]
    assert cost.parameters(student.projector) == convolutions + 2 * (middle + middle + widths[1])
    assert not student.head.weight.requires_grad


def test_it_learns_the_map_and_nothing_else() -> None:
    at = setting()
    student = SimKD().reshape(at)
    method = SimKD().build(Setting(student, at.teacher, EXAMPLE))
    assert method.label_share == 0 and method.student_taps == ("projector",)
    images = torch.randn(4, 1, 16, 32)
    ours = Tapped(student, method.student_taps)(images)
    theirs = Tapped(at.teacher, method.teacher_taps, (EXAMPLE,))(images)
    (term,) = method(
        lesson(student=dict(ours.taps), teacher=dict(theirs.taps), clock=Clock(0, 9, 3))
    ).values()
    want = (
        (
            ours.taps["projector"]
            - at.teacher.stage3(at.teacher.stage2(at.teacher.stage1(at.teacher.stem(images))))
        )
        .square()
        .mean()
    )
    torch.testing.assert_close(term.mean(), want)
    term.mean().backward()
    silent = [n for n, p in student.named_parameters() if p.requires_grad and p.grad is None]
    assert silent == []  # DDP would wait for them


def test_a_classifier_that_reads_no_map_is_refused() -> None:
    student = zoo.create("stillhouse/small", 10, 3)
    teacher = zoo.create("timm/vit_tiny_patch16_224", 10, 3, img_size=32)
    with pytest.raises(UserError, match="mean of a map"):
        SimKD().reshape(Setting(student, teacher, torch.zeros(2, 3, 32, 32)))
