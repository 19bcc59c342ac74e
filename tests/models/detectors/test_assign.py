"""Assigners against plain loops over images, objects and priors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from detectors import SIZE, some_objects
from stillhouse.batches import Objects
from stillhouse.models.detectors.assign import (
    BACKGROUND,
    IGNORED,
    assign_adaptively,
    assign_by_centre,
    assign_by_iou,
    assign_nearest,
    best_objects,
    make_assignment,
)
from stillhouse.models.detectors.priors import AnchorGrid, PointGrid, Priors, make_priors

LIKE = torch.zeros(1, dtype=torch.double)
SIZES, STRIDES = [(12, 16), (6, 8), (3, 4)], (4, 8, 16)
ANCHORS = make_priors(AnchorGrid((2.0, 4.0), (0.5, 1.0, 2.0)), SIZES, STRIDES, LIKE)
SQUARES = make_priors(AnchorGrid((4.0,)), SIZES, STRIDES, LIKE)
POINTS = make_priors(PointGrid(0.5), SIZES, STRIDES, LIKE)
CASES = {
    "several": some_objects(3, 0, 1, 5),
    "many": some_objects(12, 9, seed=1),
    "none": some_objects(0, 0),
    "one": some_objects(1, seed=2),
}
every_case = pytest.mark.parametrize("objects", CASES.values(), ids=CASES)


def overlap(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return width * height / (areas[0] + areas[1] - width * height)


def loop(objects: Objects, find: Callable[[list[int]], list[int]]) -> torch.Tensor:
    """The result of one image at a time, from the indices of its objects."""
    return torch.tensor(
        [
            find((objects.image == image).nonzero().flatten().tolist())
            for image in range(objects.images)
        ]
    )


def with_ignored(objects: Objects) -> Objects:
    """Every third object is a crowd, and every fourth is difficult."""
    number = torch.arange(len(objects.labels))
    return replace(objects, crowd=number % 3 == 1, difficult=number % 4 == 2)


def kept(objects: Objects, own: list[int]) -> list[int]:
    return [i for i in own if not objects.ignored[i]]


# --------------------------------------------------------------------------------------------- IoU


def by_iou(objects: Objects, own: list[int], priors: list[list[float]]) -> list[int]:
    own = kept(objects, own)
    boxes = objects.boxes.tolist()
    found = []
    for prior in priors:
        values = [overlap(boxes[i], prior) for i in own]
        best = max(values, default=-1.0)
        if best >= 0.5:
            found.append(own[values.index(best)])
        else:
            found.append(IGNORED if best >= 0.4 else BACKGROUND)
    for i in own:
        values = [overlap(boxes[i], prior) for prior in priors]
        for place, value in enumerate(values):
            if value == max(values) > 0:
                found[place] = i
    return found


@every_case
@pytest.mark.parametrize("ignored", [False, True])
def test_by_iou_with_anchors(objects: Objects, ignored: bool) -> None:
    objects = with_ignored(objects) if ignored else objects
    anchors = ANCHORS.boxes.tolist()
    found = assign_by_iou(objects, ANCHORS.boxes)
    assert torch.equal(found, loop(objects, lambda own: by_iou(objects, own, anchors)))


@every_case
def test_by_iou_with_boxes_of_each_image(objects: Objects) -> None:
    random = torch.Generator().manual_seed(3)
    shift = 6 * torch.randn(objects.images, len(SQUARES), 4, generator=random, dtype=torch.double)
    boxes = SQUARES.boxes + shift
    found = assign_by_iou(objects, boxes)
    for image in range(objects.images):
        own = (objects.image == image).nonzero().flatten().tolist()
        assert found[image].tolist() == by_iou(objects, own, boxes[image].tolist())


def test_an_object_that_overlaps_no_anchor_has_none() -> None:
    far = Objects(torch.tensor([[900.0, 900, 910, 910]]), torch.tensor([0]), torch.tensor([0]))
    assert (assign_by_iou(far, ANCHORS.boxes) == BACKGROUND).all()


# ------------------------------------------------------------------------------------------ centre


def by_centre(objects: Objects, own: list[int], radius: float) -> list[int]:
    own, boxes = kept(objects, own), objects.boxes.tolist()
    ranges = {4: (0, 32), 8: (32, 64), 16: (64, math.inf)}
    found = []
    for (x, y), stride in zip(POINTS.centres.tolist(), POINTS.stride.tolist(), strict=True):
        best, smallest = BACKGROUND, math.inf
        for i in own:
            x1, y1, x2, y2 = boxes[i]
            sides = [x - x1, y - y1, x2 - x, y2 - y]
            low, high = ranges[int(stride)]
            near = max(abs(x - (x1 + x2) / 2), abs(y - (y1 + y2) / 2)) < radius * stride
            fits = min(sides) > 0 and low <= max(sides) <= high and (near or not radius)
            area = (x2 - x1) * (y2 - y1)
            if fits and area < smallest:
                best, smallest = i, area
        found.append(best)
    return found


@every_case
@pytest.mark.parametrize("radius", [0.0, 1.5])
@pytest.mark.parametrize("ignored", [False, True])
def test_by_centre(objects: Objects, radius: float, ignored: bool) -> None:
    objects = with_ignored(objects) if ignored else objects
    ranges = [(0.0, 32.0), (32.0, 64.0), (64.0, math.inf)]
    found = assign_by_centre(objects, POINTS, ranges, radius)
    assert torch.equal(found, loop(objects, lambda own: by_centre(objects, own, radius)))


# -------------------------------------------------------------------------------------------- ATSS


def adaptively(objects: Objects, own: list[int], priors: Priors, count: int) -> list[int]:
    boxes, anchors = objects.boxes.tolist(), priors.boxes.tolist()
    centres, best = priors.centres.tolist(), [(-1.0, BACKGROUND)] * len(priors)
    for i in kept(objects, own):
        x1, y1, x2, y2 = boxes[i]
        middle, candidates, start = ((x1 + x2) / 2, (y1 + y2) / 2), [], 0
        for size in priors.counts:
            level = range(start, start + size)
            candidates += sorted(level, key=lambda p: math.dist(centres[p], middle))[:count]
            start += size
        values = [overlap(boxes[i], anchors[p]) for p in candidates]
        mean = sum(values) / len(values)
        spread = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
        for p, value in zip(candidates, values, strict=True):
            x, y = centres[p]
            inside = min(x - x1, y - y1, x2 - x, y2 - y) > 0.01
            if inside and value >= mean + spread and value > best[p][0]:
                best[p] = (value, i)
    return [index for _, index in best]


@every_case
@pytest.mark.parametrize("ignored", [False, True])
def test_adaptively(objects: Objects, ignored: bool) -> None:
    objects = with_ignored(objects) if ignored else objects
    found = assign_adaptively(objects, SQUARES, 9)
    assert torch.equal(found, loop(objects, lambda own: adaptively(objects, own, SQUARES, 9)))


def test_a_level_smaller_than_the_number_of_candidates() -> None:
    small = make_priors(AnchorGrid((4.0,)), [(2, 2), (1, 1)], (16, 32), LIKE)
    objects = some_objects(3)
    expected = loop(objects, lambda own: adaptively(objects, own, small, 9))
    assert torch.equal(assign_adaptively(objects, small, 9), expected)


# ----------------------------------------------------------------------------------------- nearest


def nearest(objects: Objects, own: list[int], scale: float) -> list[int]:
    boxes, centres = objects.boxes.tolist(), SQUARES.centres.tolist()
    strides, best = SQUARES.stride.tolist(), [(math.inf, BACKGROUND)] * len(SQUARES)
    for i in kept(objects, own):
        x1, y1, x2, y2 = boxes[i]
        w, h = x2 - x1, y2 - y1
        level = int((math.log2(w / scale) + math.log2(h / scale)) / 2)
        stride = 2 ** min(max(level, 2), 4)
        far = {
            p: math.hypot((x - (x1 + x2) / 2) / w, (y - (y1 + y2) / 2) / h)
            for p, (x, y) in enumerate(centres)
            if strides[p] == stride
        }
        p = min(far, key=far.__getitem__)
        if far[p] < best[p][0]:
            best[p] = (far[p], i)
    return [index for _, index in best]


@every_case
@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_nearest(objects: Objects, ignored: bool, scale: float) -> None:
    objects = with_ignored(objects) if ignored else objects
    found = assign_nearest(objects, SQUARES, scale)
    assert torch.equal(found, loop(objects, lambda own: nearest(objects, own, scale)))


# -------------------------------------------------------------------------------------- properties


def test_an_assignment_has_the_labels_and_boxes_of_its_objects() -> None:
    objects = some_objects(2, 0, 3)
    index = torch.tensor([[0, 1, BACKGROUND, IGNORED], [BACKGROUND] * 4, [4, 2, 3, BACKGROUND]])
    made = make_assignment(index, objects, SQUARES.boxes[:4])
    labels = objects.labels.tolist()
    assert made.labels.tolist() == [
        [labels[0], labels[1], -1, -1],
        [-1] * 4,
        [labels[4], labels[2], labels[3], -1],
    ]
    assert torch.equal(made.boxes[2, 0], objects.boxes[4])
    assert torch.equal(made.boxes[1], SQUARES.boxes[:4])
    assert made.positives.tolist() == [2, 0, 3] and int(made.mass) == 6
    assert made.counted.tolist()[0] == [True, True, True, False]


def test_the_first_of_equal_objects_is_taken() -> None:
    values = torch.tensor([[1.0, 2.0], [1.0, -math.inf], [3.0, -math.inf]])
    objects = replace(some_objects(2, 1), labels=torch.zeros(3, dtype=torch.int64))
    best, index = best_objects(values, objects)
    assert index.tolist() == [[0, 0], [2, BACKGROUND]]
    assert best.tolist() == [[1.0, 2.0], [3.0, -math.inf]]


@pytest.mark.parametrize("assign", [assign_adaptively, assign_nearest])
def test_each_image_is_assigned_as_if_it_were_alone(
    assign: Callable[[Objects, Priors], torch.Tensor],
) -> None:
    objects = some_objects(3, 0, 4)
    together = assign(objects, SQUARES)
    start = 0
    for image, count in enumerate((3, 0, 4)):
        alone = assign(objects.rows(slice(image, image + 1)), SQUARES)
        assert torch.equal(alone[0].where(alone[0] < 0, alone[0] + start), together[image])
        start += count


def test_scenes_have_positives_at_all() -> None:
    """So that the loops above compare something."""
    objects = CASES["many"]
    assert SIZE == (48, 64)
    assert (assign_by_iou(objects, ANCHORS.boxes) >= 0).sum() > 20
    assert (assign_adaptively(objects, SQUARES) >= 0).sum() > 20
    assert (assign_nearest(objects, SQUARES) >= 0).sum() > 10
