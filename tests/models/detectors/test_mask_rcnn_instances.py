"""Two-stage detectors with masks: the instances of an image, against plain loops."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from detectors import SIZE, some_batch, some_objects
from mask_regions import BOTH, COUNTS, OPTIONS, SIDE, far, masked_objects
from stillhouse.models.detectors import region_masks
from stillhouse.models.detectors.region_head import pool_regions
from stillhouse.models.detectors.region_masks import paste_masks
from stillhouse.models.detectors.suppress import detect
from stillhouse.types import Trace


def cell_value(shares: list[list[float]], y: float, x: float) -> float:
    """The bilinear value between the centres of cells, with 0 around them."""
    side, value = len(shares), 0.0
    top, left = math.floor(y - 0.5), math.floor(x - 0.5)
    for r in (top, top + 1):
        for c in (left, left + 1):
            if 0 <= r < side and 0 <= c < side:
                value += (1 - abs(y - 0.5 - r)) * (1 - abs(x - 0.5 - c)) * shares[r][c]
    return value


@BOTH
def test_instances_are_those_of_a_loop(family: str) -> None:
    detector = far(family)
    with torch.no_grad():
        out = detector(some_batch(*COUNTS).images)
    sizes = [SIZE, (40, 50), SIZE]
    boxes = detect(out, torch.tensor(sizes), OPTIONS)
    assert boxes.scores is not None
    for image, (height, width) in enumerate(sizes):
        found = out.segment(image, (height, width), OPTIONS)
        own = boxes.image == image
        assert found.images == 1 and found.masks is not None and found.scores is not None
        torch.testing.assert_close(found.boxes, boxes.boxes[own])
        torch.testing.assert_close(found.scores, boxes.scores[own])
        assert torch.equal(found.labels, boxes.labels[own]) and len(found.labels) > 3
        assert found.masks.shape == (len(found.labels), *SIZE) and found.masks.dtype == torch.bool
        assert found.masks.any() and not found.masks.all()
        assert not found.masks[:, height:].any() and not found.masks[:, :, width:].any()
        where = torch.full_like(found.labels, image)
        pooled = pool_regions(out.levels, (4, 8), found.boxes, where, SIDE // 2)
        for k, (label, (x1, y1, x2, y2)) in enumerate(
            zip(found.labels.tolist(), found.boxes.tolist(), strict=True)
        ):
            maps = [head(pooled)[k, label].sigmoid() for head in detector.mask_heads]
            shares = (sum(maps, torch.zeros(())) / len(maps)).tolist()
            wanted = torch.zeros(SIZE, dtype=torch.bool)
            for r in range(height):
                for c in range(width):
                    y = (r + 0.5 - y1) / (y2 - y1) * SIDE
                    x = (c + 0.5 - x1) / (x2 - x1) * SIDE
                    wanted[r, c] = cell_value(shares, y, x) >= 0.5
            assert torch.equal(found.masks[k], wanted)


@pytest.mark.parametrize("autocast", [False, True])
def test_pasted_masks_are_those_of_a_sampling_grid(autocast: bool) -> None:
    random = torch.Generator().manual_seed(0)
    shares, boxes = torch.rand(4, 7, 7, generator=random), some_objects(4, seed=2).boxes.float()
    boxes[0, :2] -= 30  # partly outside
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = paste_masks(shares, boxes, SIZE)
    y, x = (torch.arange(side) + 0.5 for side in SIZE)
    x1, y1, x2, y2 = boxes[:, :, None].unbind(1)
    across, down = 2 * (x - x1) / (x2 - x1) - 1, 2 * (y - y1) / (y2 - y1) - 1
    grid = torch.stack([across[:, None].expand(4, *SIZE), down[:, :, None].expand(4, *SIZE)], -1)
    wanted = F.grid_sample(shares[:, None], grid, align_corners=False)[:, 0]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_boxes_without_area_have_empty_masks() -> None:
    boxes = torch.tensor([[5.0, 5, 5, 20], [70, 5, 70, 5]])
    found = paste_masks(torch.ones(2, 4, 4), boxes, SIZE)
    assert bool(found.isfinite().all()) and not (found >= 0.5).any()


def test_instances_do_not_depend_on_the_rest_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    detector, images = far("cascade_mask_rcnn"), some_batch(*COUNTS).images
    together = detector(images).segment(2, SIZE, OPTIONS)
    monkeypatch.setattr(region_masks, "CHUNK", 2)
    alone = detector(images[2:]).segment(0, SIZE, OPTIONS)
    trained = replace(detector(images), stages=None).segment(2, SIZE, OPTIONS)
    for other in (alone, trained):
        torch.testing.assert_close(other.boxes, together.boxes)
        assert torch.equal(other.masks, together.masks)


def test_nothing_found() -> None:
    out = far("mask_rcnn")(some_batch(1).images)
    found = out.segment(0, (40, 50), replace(OPTIONS, threshold=1.0))
    assert found.masks.shape == (0, *SIZE) and found.boxes.shape == (0, 4)


# ------------------------------------------------------------------------------------ other forms


@BOTH
def test_masks_of_some_classes_in_another_order(family: str) -> None:
    out, objects = far(family)(some_batch(*COUNTS).images), some_objects(*COUNTS)
    order = torch.tensor([3, 0, 4])
    chosen = out.select(order).select(torch.tensor([2, 0]))  # classes 4 and 3
    old, new = torch.tensor([4, 3, 3, 4, 4]), torch.tensor([0, 1, 1, 0, 0])
    for stage in range(len(out.predicted)):
        own = chosen.mask_logits(objects.boxes, objects.image, new, stage)
        assert torch.equal(own, out.mask_logits(objects.boxes, objects.image, old, stage))
        scored = chosen.score(objects.boxes, objects.image, stage)
        whole = out.score(objects.boxes, objects.image, stage)
        assert torch.equal(scored.scores, whole.scores[:, [4, 3, 5]])
    found = chosen.segment(0, SIZE, replace(OPTIONS, most=50))
    assert found.masks is not None and found.masks.any()
    labels = torch.tensor([4, 3])[found.labels]
    shares = [
        out.mask_logits(found.boxes, found.image, labels, stage).sigmoid()
        for stage in range(len(out.predicted))
    ]
    wanted = paste_masks(torch.stack(shares).mean(0), found.boxes, SIZE) >= 0.5
    assert torch.equal(found.masks, wanted)


def test_two_networks_score_the_masks_of_the_same_regions() -> None:
    batch, objects = some_batch(*COUNTS), masked_objects(*COUNTS)
    student, teacher = far("mask_rcnn"), far("cascade_mask_rcnn", backbone="stillhouse/medium")
    (found,) = student(batch.images).assign(objects).stages
    assert found.masks is not None
    given = (
        found.regions.boxes[found.masks.rows],
        found.regions.image[found.masks.rows],
        found.labels[found.masks.rows],
    )
    own = student(batch.images).mask_logits(*given)
    torch.testing.assert_close(own, found.masks.logits)
    whole = teacher(batch.images)
    detached = Trace(whole.select(torch.arange(5))).detached().out
    assert not any(level.requires_grad for level in detached.levels)
    torch.testing.assert_close(detached.mask_logits(*given), whole.mask_logits(*given))
    assert detached.mask_logits(*given).shape == own.shape == found.masks.targets.shape
