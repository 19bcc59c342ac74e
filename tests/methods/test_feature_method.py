"""A feature preset at pairs of taps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from stillhouse.methods.feature import AdaptedPair, Features
from stillhouse.models.adapters import align
from stillhouse.objectives import presets
from stillhouse.types import Clock, Lesson
from tiny import lesson


def maps(n: int, c: int, size: int) -> Tensor:
    return torch.randn(n, c, size, size)


def same(student: str = "body", teacher: str = "layer4") -> AdaptedPair:
    return AdaptedPair(student, teacher, nn.Identity())


def test_a_pair_is_the_preset_at_its_two_maps() -> None:
    student, teacher = maps(3, 4, 5), maps(3, 4, 5)
    method = Features(presets.cwd(weight=3.0), [same()])
    terms = method(lesson(student={"body": student}, teacher={"layer4": teacher}))
    assert list(terms) == ["body/cwd"]
    term = terms["body/cwd"]
    torch.testing.assert_close(term.weight * term.mean(), presets.cwd()(student, teacher))


def test_taps_are_asked_for_by_their_names() -> None:
    method = Features(presets.mimic(), [same("a", "x"), same("b", "y")])
    assert method.student_taps == ("a", "b")
    assert method.teacher_taps == ("x", "y")


def test_an_adapter_stands_on_the_student_s_side_and_learns() -> None:
    student, teacher = maps(3, 2, 4), maps(3, 5, 4).requires_grad_()
    adapter = nn.Conv2d(2, 5, 1)
    method = Features(presets.mimic(), [AdaptedPair("a", "x", adapter)])
    (term,) = method(lesson(student={"a": student}, teacher={"x": teacher})).values()
    torch.testing.assert_close(term.mean(), (adapter(student) - teacher).square().mean())
    term.mean().backward()
    assert adapter.weight.grad.abs().sum() > 0
    assert teacher.grad is None
    (group,) = method.groups().values()
    assert list(group) == [adapter.weight, adapter.bias]


@pytest.mark.parametrize(("ours", "theirs"), [(8, 4), (4, 8), (6, 4)])
def test_the_larger_map_is_pooled_to_the_smaller(ours: int, theirs: int) -> None:
    student, teacher = maps(2, 3, ours), maps(2, 3, theirs)
    (term,) = Features(presets.mimic(), [same()])(
        lesson(student={"body": student}, teacher={"layer4": teacher})
    ).values()
    s, t = align(student, teacher)
    assert s.shape == t.shape == (2, 3, 4, 4)
    torch.testing.assert_close(term.mean(), (s - t).square().mean())


@pytest.mark.parametrize(
    ("ours", "theirs"), [((4, 6), (8, 12)), ((8, 6), (4, 3)), ((5, 4), (5, 7))]
)
def test_pkd_interpolates_the_map_of_the_student(
    ours: tuple[int, int], theirs: tuple[int, int]
) -> None:
    student, teacher = torch.randn(2, 3, *ours), torch.randn(2, 3, *theirs)
    (term,) = Features(presets.pkd(), [same()])(
        lesson(student={"body": student}, teacher={"layer4": teacher})
    ).values()
    resized = nn.Upsample(theirs, mode="bilinear")(student)
    both = [x.transpose(0, 1).flatten(1) for x in (resized, teacher)]
    s, t = ((x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-6) for x in both)
    torch.testing.assert_close(term.weight * term.mean(), 3 * (s - t).square().mean())


@pytest.mark.parametrize("preset", [presets.mimic(), presets.cwd(), presets.pkd()])
def test_images_without_weight_are_as_if_absent(preset: presets.FeaturePreset) -> None:
    student, teacher = maps(4, 3, 4), maps(4, 3, 4)
    weight, there = torch.tensor([1.0, 0.0, 1.0, 0.0]), [0, 2]
    method = Features(preset, [same()])
    (term,) = method(
        lesson(student={"body": student}, teacher={"layer4": teacher}, weight=weight)
    ).values()
    (few,) = method(
        lesson(student={"body": student[there]}, teacher={"layer4": teacher[there]})
    ).values()
    torch.testing.assert_close(term.mean(), few.mean())


def test_weights_rise_by_the_epoch() -> None:
    tapped = {"student": {"body": maps(2, 3, 4)}, "teacher": {"layer4": maps(2, 3, 4)}}
    method = Features(presets.cwd(weight=3.0, warmup=2), [same()])
    (start,) = method(lesson(clock=Clock(0, 40, 10), **tapped)).values()
    (later,) = method(lesson(clock=Clock(10, 40, 10), **tapped)).values()
    assert (start.weight, later.weight) == (1.5, 3.0)


def two_teachers(first: Tensor, second: Tensor) -> Lesson:
    return lesson(student={"a": maps(2, 3, 4)}, teacher={"x": first, "y": second})


def test_one_student_tap_may_look_like_two_of_the_teacher() -> None:
    """Neither pair may write over the other's term."""
    first, second = maps(2, 3, 4), maps(2, 3, 4)
    at = two_teachers(first, second)
    both = Features(presets.mimic(), [same("a", "x"), same("a", "y")])(at)
    student = at.student.taps["a"]
    want = [(student - teacher).square().mean() for teacher in (first, second)]
    assert list(both) == ["a-x/mimic", "a-y/mimic"]
    torch.testing.assert_close([term.mean() for term in both.values()], want)


def test_a_method_says_how_much_labels_count_beside_it() -> None:
    assert Features(presets.cwd(), [same()]).label_share == 1.0
    assert Features(presets.cwd(label_weight=0.5), [same()]).label_share == 0.5


def test_adapters_compute_in_full_precision_under_autocast() -> None:
    student, teacher = maps(3, 2, 4), maps(3, 5, 4)
    pair = AdaptedPair("a", "x", nn.Conv2d(2, 5, 1))
    method = Features(presets.mimic(), [pair])
    given = lesson(student={"a": student}, teacher={"x": teacher})
    (plain,) = method(given).values()
    with torch.autocast("cpu", torch.bfloat16):
        (found,) = method(given).values()
    assert torch.equal(found.total, plain.total)
