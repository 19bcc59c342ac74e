"""Mean IoU and its relatives, pixel by pixel."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from stillhouse.batches import Batch
from stillhouse.functional.boundary_region import boundary_region
from stillhouse.tasks.meters.mean_iou import MeanIoU
from stillhouse.types import Trace

CLASSES = 5


def batch_of(mask: Tensor | None, images: int, sizes: Tensor | None = None) -> Batch[Any]:
    keys = torch.arange(images)
    side = (9, 12) if mask is None else tuple(mask.shape[1:])
    return Batch(torch.zeros(images, 3, *side), mask, keys, torch.zeros_like(keys), sizes=sizes)


def meter_of(**options: Any) -> MeanIoU:
    return MeanIoU(CLASSES, lambda trace, batch: trace.out, **options)


def some_masks(seed: int, images: int = 3) -> tuple[Tensor, Tensor]:
    """Labels without class 4, predictions without class 3; some pixels are ignored."""
    random = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, 4, (images, 9, 12), generator=random)
    found = torch.randint(0, 4, (images, 9, 12), generator=random)
    found = torch.where(torch.rand(found.shape, generator=random) < 0.6, truth, found)
    found = found.masked_fill(found == 3, 4 if seed % 2 else 0)
    return truth.masked_fill(torch.rand(truth.shape, generator=random) < 0.1, 255), found


def scores_by_hand(truth: Tensor, found: Tensor) -> dict[str, float]:
    pairs = [
        (a, b)
        for a, b in zip(truth.flatten().tolist(), found.flatten().tolist(), strict=True)
        if a != 255
    ]
    ious, recalls = [], []
    for c in range(CLASSES):
        both = sum(a == b == c for a, b in pairs)
        either = sum(c in pair for pair in pairs)
        labelled = sum(a == c for a, _ in pairs)
        if either:
            ious.append(both / either)
        if labelled:
            recalls.append(both / labelled)
    return {
        "miou": 100 * sum(ious) / len(ious),
        "accuracy": 100 * sum(a == b for a, b in pairs) / len(pairs),
        "mean_accuracy": 100 * sum(recalls) / len(recalls),
        "classes": float(len(ious)),
        "images": float(len(truth)),
    }


@pytest.mark.parametrize("seed", [0, 1])
def test_scores_are_sums_over_all_images(seed: int) -> None:
    truth, found = some_masks(seed)
    meter = meter_of()
    for part in (slice(0, 1), slice(1, 3)):
        meter.update(Trace(found[part]), batch_of(truth[part].byte(), len(truth[part])))
    assert meter.summary() == pytest.approx(scores_by_hand(truth, found))
    assert meter.summary()["classes"] == 4 + seed % 2  # class 3 has labels, class 4 none


def test_states_add_up() -> None:
    truth, found = some_masks(1)
    parts = []
    for i in range(3):
        meter = meter_of(boundary=True)
        meter.update(Trace(found[i : i + 1]), batch_of(truth[i : i + 1], 1))
        parts.append(meter.state())
    whole, joined = meter_of(boundary=True), meter_of(boundary=True)
    whole.update(Trace(found), batch_of(truth, 3))
    joined.load({name: torch.stack([part[name] for part in parts]).sum(0) for name in parts[0]})
    assert joined.summary() == pytest.approx(whole.summary())
    empty = meter_of(boundary=True)
    assert {name: part.shape for name, part in empty.state().items()} == {
        name: part.shape for name, part in whole.state().items()
    }
    joined.load({name: part + empty.state()[name] for name, part in whole.state().items()})
    assert joined.summary() == pytest.approx(whole.summary())


def test_nothing_to_count() -> None:
    meter = meter_of()
    meter.update(Trace(None), batch_of(None, 2))
    assert meter.summary() == {
        "miou": 0, "accuracy": 0, "mean_accuracy": 0, "classes": 0, "images": 0,
    }  # fmt: skip
    ignored = torch.full((2, 9, 12), 255)
    meter.update(Trace(torch.zeros(2, 9, 12, dtype=torch.int64)), batch_of(ignored, 2))
    assert meter.summary()["images"] == 0 and meter.summary()["miou"] == 0


def near_outside(mask: list[list[bool]], distance: int) -> set[tuple[int, int]]:
    height, width = len(mask), len(mask[0])
    kept = set()
    for y in range(height):
        for x in range(width):
            window = [
                0 <= j < height and 0 <= i < width and mask[j][i]
                for j in range(y - distance, y + distance + 1)
                for i in range(x - distance, x + distance + 1)
            ]
            if mask[y][x] and not all(window):
                kept.add((y, x))
    return kept


@pytest.mark.parametrize("distance", [1, 2])
def test_boundary_regions(distance: int) -> None:
    masks = torch.zeros(2, 9, 12, dtype=torch.bool)
    masks[0, 1:8, 2:11] = True
    masks[1] = torch.rand(9, 12, generator=torch.Generator().manual_seed(0)) < 0.8
    for mask, found in zip(masks, boundary_region(masks, distance), strict=True):
        want = near_outside(mask.tolist(), distance)
        assert {(int(y), int(x)) for y, x in found.nonzero()} == want
    whole = boundary_region(torch.ones(1, 9, 12, dtype=torch.bool), 1)
    assert int(whole.sum()) == 9 * 12 - 7 * 10  # the edge of the image is outside


def test_boundary_iou_counts_pixels_near_the_boundary() -> None:
    truth, found = some_masks(1)
    sizes = torch.tensor([[9, 12], [60, 80], [9, 12]])
    meter = meter_of(boundary=True)
    meter.update(Trace(found), batch_of(truth, 3, sizes))
    values = []
    for c in range(CLASSES):
        shared = either = 0
        for n, (height, width) in enumerate(sizes.tolist()):
            distance = max(1, round(0.02 * math.hypot(height, width)))
            known = truth[n] != 255
            one, other = (
                near_outside(((m[n] == c) & known).tolist(), distance) for m in (truth, found)
            )
            shared, either = shared + len(one & other), either + len(one | other)
        if either:
            values.append(shared / either)
    assert meter.summary()["boundary_iou"] == pytest.approx(100 * sum(values) / len(values))
    assert "boundary_iou" not in meter_of().summary()
