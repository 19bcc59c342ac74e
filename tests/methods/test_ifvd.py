"""IFVD in plain loops: prototypes of classes, and the cosine of each pixel with its own."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from segment_room import CLASSES, IGNORED, SIDES, SIZE, STRIDE, SegmentRoom, masks
from stillhouse.errors import UserError
from stillhouse.functional.prototypes import class_groups, class_means, prototype_similarity
from stillhouse.methods.ifvd import IFVD
from stillhouse.methods.segmentation import label_rows
from stillhouse.types import Lesson, Trace

Map = list[list[list[float]]]  # channels, rows, columns


def cosine(a: list[float], b: list[float]) -> float:
    lengths = math.sqrt(sum(v * v for v in a)) * math.sqrt(sum(v * v for v in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / lengths


def similarities(maps: Map, mask: list[list[int]]) -> dict[tuple[int, int], float]:
    """Of each pixel with a class to the mean of its class."""
    pixels: dict[int, list[tuple[int, int]]] = {}
    for y in range(SIZE[0]):
        for x in range(SIZE[1]):
            label = mask[STRIDE * y][STRIDE * x]
            if label != IGNORED:
                pixels.setdefault(label, []).append((y, x))
    found = {}
    for places in pixels.values():
        mean = [sum(channel[y][x] for y, x in places) / len(places) for channel in maps]
        for y, x in places:
            found[y, x] = cosine([channel[y][x] for channel in maps], mean)
    return found


@pytest.mark.parametrize("variant", ["paper", "reference"])
def test_values_are_those_of_the_formula(variant: Any) -> None:
    room = SegmentRoom(IFVD(3.0, variant))
    lesson = room.lesson()
    assert lesson.labels is not None
    total, count = 0.0, 0
    pair = [trace.taps["last"].tolist() for trace in (lesson.student, lesson.teacher)]
    for student, teacher, mask in zip(*pair, lesson.labels.tolist(), strict=True):
        ours, theirs = similarities(student, mask), similarities(teacher, mask)
        total += sum((ours[place] - theirs[place]) ** 2 for place in ours)
        count += len(ours) if variant == "paper" else SIZE[0] * SIZE[1]
    term = room.terms(lesson)["last"]
    assert float(term.mean().detach()) == pytest.approx(total / count, rel=1e-9)
    assert float(term.mass) == count and term.weight == 3 and total > 1


def test_the_gradient_is_that_of_the_formula() -> None:
    """Also through the prototypes."""
    room = SegmentRoom(IFVD())
    lesson = room.lesson(1)

    def loss(maps: Tensor) -> Tensor:
        student = Trace(lesson.student.out, {"last": maps})
        return room.terms(replace(lesson, student=student))["last"].mean()

    maps = lesson.student.taps["last"]
    assert torch.autograd.gradcheck(loss, (maps,))
    loss(maps).backward()
    assert lesson.teacher.taps["last"].grad is None


def test_equal_maps_have_no_loss() -> None:
    room = SegmentRoom(IFVD(), (6, 6))
    lesson = room.lesson()
    same = replace(lesson, teacher=lesson.student)
    term = room.terms(same)["last"]
    term.total.backward()
    assert float(term.total) == 0
    assert float(lesson.student.taps["last"].grad.abs().sum()) == 0


def test_the_scale_of_features_does_not_matter() -> None:
    room = SegmentRoom(IFVD())
    lesson = room.lesson()
    scaled = replace(
        lesson, student=Trace(None, {"last": 7 * lesson.student.taps["last"].detach()})
    )
    found = [float(room.terms(one)["last"].mean()) for one in (lesson, scaled)]
    assert found[0] == pytest.approx(found[1], rel=1e-12)


def test_ignored_pixels_have_no_influence() -> None:
    room = SegmentRoom(IFVD())
    lesson = room.lesson()
    assert lesson.labels is not None
    student = lesson.student.taps["last"].detach().clone()
    ignored = lesson.labels[:, ::STRIDE, ::STRIDE] == IGNORED
    assert ignored.any()
    student.movedim(1, -1)[ignored] = 1e3
    changed = replace(lesson, student=Trace(None, {"last": student}))
    assert float(room.terms(changed)["last"].mean()) == pytest.approx(
        float(room.terms(lesson)["last"].mean()), rel=1e-12
    )


@pytest.mark.parametrize("variant", ["paper", "reference"])
def test_images_without_a_class_have_no_mass(variant: Any) -> None:
    room = SegmentRoom(IFVD(variant=variant))
    mask = masks(3)
    mask[1] = IGNORED
    whole = room.lesson(labels=mask)
    some = room.lesson(labels=masks(3))
    term = room.terms(whole)["last"]
    less = room.terms(some)["last"].mass - term.mass
    assert float(less) > 0
    for labels in (None, torch.full_like(mask, IGNORED)):
        lesson = room.lesson(labels=labels)
        empty = room.terms(lesson)["last"]
        assert float(empty.total) == float(empty.mass) == 0
        empty.total.backward()
        assert float(lesson.student.taps["last"].grad.abs().sum()) == 0


def test_a_class_of_one_pixel_says_nothing() -> None:
    room = SegmentRoom(IFVD())
    mask = torch.full((1, *SIDES), IGNORED, dtype=torch.uint8)
    mask[0, :STRIDE, :STRIDE] = 2
    term = room.terms(room.lesson(1, labels=mask))["last"]
    assert float(term.mass) == 1 and float(term.total) == pytest.approx(0, abs=1e-20)


def test_features_that_are_0_have_similarity_0() -> None:
    labels = torch.tensor([[0, 0, -1]])
    found = prototype_similarity(torch.zeros(1, 3, 5).requires_grad_(), labels, 2)
    assert found.tolist() == [[0, 0, 0]]
    found.sum().backward()


def test_means_are_of_each_class_and_image() -> None:
    features = torch.tensor([[[1.0], [3.0], [9.0]], [[5.0], [7.0], [2.0]]])
    labels = torch.tensor([[0, 0, 1], [1, -1, 1]])
    groups = class_groups(labels, 2)
    means, count = class_means(features, groups, 5)
    assert groups.tolist() == [[0, 0, 1], [3, 4, 3]]
    assert means.flatten().tolist() == [2, 9, 0, 3.5, 7] and count.tolist() == [2, 1, 0, 2, 1]


def test_labels_are_those_of_the_map() -> None:
    maps = torch.zeros(2, 3, *SIZE)
    mask = masks(2)
    found = label_rows(mask, maps, CLASSES).view(2, *SIZE)
    want = mask[:, ::STRIDE, ::STRIDE].long()
    assert torch.equal(found, want.masked_fill(want == IGNORED, -1))
    assert set(label_rows(None, maps, CLASSES).flatten().tolist()) == {-1}
    assert (label_rows(torch.full((2, *SIDES), CLASSES), maps, CLASSES) == -1).all()
    with pytest.raises(UserError, match="needs the class of each pixel, but the labels have shape"):
        label_rows(torch.tensor([1, 2]), maps, CLASSES)


def test_a_teacher_at_another_size_is_resized() -> None:
    room = SegmentRoom(IFVD())
    lesson: Lesson = room.lesson()
    small = lesson.teacher.taps["last"].detach()[:, :, ::2, ::2]
    term = room.terms(replace(lesson, teacher=Trace(None, {"last": small})))["last"]
    assert term.total.isfinite() and float(term.mass) > 0
