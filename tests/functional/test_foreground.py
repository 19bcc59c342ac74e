"""Cells of objects, cell by cell."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from stillhouse.functional.foreground import (
    background_weights,
    cover,
    focal_foreground,
    level_of_scale,
    near_objects,
    object_cells,
)

SHAPE = (3, 5, 7)  # images, rows, columns


def some_boxes(count: int = 9, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Boxes of all sizes in cells, some of which leave the map; the second image has none."""
    random = torch.Generator().manual_seed(seed)
    low = 8 * torch.rand(count, 2, generator=random, dtype=torch.double) - 1
    sides = 4 * torch.rand(count, 2, generator=random, dtype=torch.double) ** 2
    image = torch.tensor([0] * 4 + [2] * (count - 4))
    return torch.cat([low, low + sides], 1), image


def test_focal_foreground_cell_by_cell() -> None:
    boxes, image = some_boxes()
    found = focal_foreground(boxes, image, SHAPE)
    for n in range(SHAPE[0]):
        for y in range(SHAPE[1]):
            for x in range(SHAPE[2]):
                best = 0.0
                for (x1, y1, x2, y2), own in zip(boxes.tolist(), image.tolist(), strict=True):
                    left, top = math.floor(x1), math.floor(y1)
                    right, bottom = math.ceil(x2), math.ceil(y2)
                    if own == n and left <= x <= right and top <= y <= bottom:
                        best = max(best, 1 / ((right - left + 1) * (bottom - top + 1)))
                assert float(found[n, y, x]) == pytest.approx(best, abs=1e-15)
    assert not found[1].any() and found[0].any() and found[2].any()


def test_a_box_alone_has_a_total_weight_of_one() -> None:
    boxes = torch.tensor([[1.2, 1.0, 2.5, 2.1], [0.0, 0.0, 0.0, 0.0]])
    found = focal_foreground(boxes, torch.tensor([0, 2]), SHAPE)
    assert found.sum((1, 2)).tolist() == pytest.approx([1, 0, 1])
    assert found[0, 1:4, 1:4].eq(1 / 9).all() and found[2, 0, 0] == 1


def test_the_background_is_what_no_box_covers() -> None:
    foreground = focal_foreground(*some_boxes(), SHAPE)
    found = background_weights(foreground)
    assert found.sum((1, 2)).tolist() == pytest.approx([1, 1, 1])
    assert torch.equal(found > 0, foreground == 0)
    assert found[1].eq(1 / 35).all()
    assert not background_weights(torch.ones(2, 3, 3)).any()
    assert background_weights(torch.zeros(0, 3, 3)).shape == (0, 3, 3)


def test_object_cells_cell_by_cell() -> None:
    boxes, image = some_boxes()
    found = object_cells(boxes, image, SHAPE)
    for n in range(SHAPE[0]):
        for y in range(SHAPE[1]):
            for x in range(SHAPE[2]):
                inside = False
                for (x1, y1, x2, y2), own in zip(boxes.tolist(), image.tolist(), strict=True):
                    left, top = math.floor(x1), math.floor(y1)
                    right, bottom = max(left + 1, math.floor(x2)), max(top + 1, math.floor(y2))
                    inside |= own == n and left <= x < right and top <= y < bottom
                assert float(found[n, y, x]) == inside


def test_of_several_values_the_largest_is_painted() -> None:
    spans = torch.tensor([[0, 0, 1, 1], [1, 1, 2, 1], [9, 9, 9, 9]])
    found = cover(spans, torch.tensor([1.0, 2.0, 5.0]), torch.tensor([0, 0, 0]), (1, 2, 3))
    assert found.tolist() == [[[1, 1, 0], [1, 2, 2]]]


def test_no_boxes_and_no_images() -> None:
    none = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)
    for make in (focal_foreground, object_cells):
        assert torch.equal(make(*none, SHAPE), torch.zeros(SHAPE))
        assert make(*none, (0, 2, 3)).shape == (0, 2, 3)
    assert torch.equal(near_objects(*none, 2, torch.rand(6, 4)), torch.zeros(2, 6))


def overlap(a: list[float], b: list[float]) -> float:
    sides = [max(0.0, min(a[k + 2], b[k + 2]) - max(a[k], b[k])) for k in (0, 1)]
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return sides[0] * sides[1] / (sum(areas) - sides[0] * sides[1])


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_near_objects_pair_by_pair(share: float) -> None:
    boxes, image = some_boxes()
    priors, _ = some_boxes(40, seed=1)
    boxes = torch.cat([boxes, torch.tensor([[50.0, 50, 60, 60]])])  # overlaps no prior
    image = torch.cat([image, torch.tensor([2])])
    found = near_objects(boxes, image, 3, priors, share)
    want = [[0] * 40 for _ in range(3)]
    for box, n in zip(boxes.tolist(), image.tolist(), strict=True):
        overlaps = [overlap(box, prior) for prior in priors.tolist()]
        for p, value in enumerate(overlaps):
            want[n][p] += value > share * max(overlaps)
    assert found.tolist() == want
    assert found.max() > 1 or share > 0.5  # a prior that is near to two objects


@pytest.mark.parametrize("finest", [56.0, 112.0])
def test_each_doubling_of_the_size_is_a_level(finest: float) -> None:
    sides = finest * torch.tensor([0.1, 0.99, 1.0, 1.99, 2.0, 3.99, 4.0, 8.0, 100.0])
    boxes = torch.stack([sides * 0, sides * 0, 2 * sides, sides / 2], 1)
    assert level_of_scale(boxes, finest, 4).tolist() == [0, 0, 0, 0, 1, 1, 2, 3, 3]
    assert level_of_scale(torch.zeros(1, 4), finest, 4).tolist() == [0]
