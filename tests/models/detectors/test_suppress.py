"""Detections of raw predictions, against a plain loop over images, levels and candidates."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from detectors import FAMILIES, SIZE, small_detector
from stillhouse.models.detectors.output import Dense, Suppression
from stillhouse.models.detectors.suppress import detect

SIZES = torch.tensor([SIZE, (40, 50), SIZE])
Row = tuple[float, int, list[float]]


def raw(family: str, spread: float = 2.0) -> Dense:
    """Predictions of which many are above the threshold and overlap."""
    torch.manual_seed(1)
    detector = small_detector(family, classes=3).double().eval()
    with torch.no_grad():
        out: Dense = detector(torch.randn(3, 3, *SIZE, dtype=torch.double))
    random = torch.Generator().manual_seed(2)
    scores = spread * torch.randn(out.scores.shape, generator=random, dtype=torch.double) - 1
    boxes = out.boxes + (2.0 if family == "fcos" else 0.0)
    return replace(out, scores=scores, boxes=boxes)


def overlap(a: list[float], b: list[float]) -> float:
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(
        0.0, min(a[3], b[3]) - max(a[1], b[1])
    )
    union = sum((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)) - shared
    return shared / union if union > 0 else 0.0


def loop(out: Dense, image: int, options: Suppression) -> list[Row]:
    height, width = SIZES[image].tolist()
    boxes: Tensor = out.family.decode(out)[image]
    ranked, plain = out.family.probabilities(out)[image], out.scores[image].sigmoid()
    x, y = out.priors.centres.unbind(1)
    found: list[Row] = []
    start = 0
    for count in out.priors.counts:
        level = [
            (float(ranked[p, k]), k, p)
            for p in range(start, start + count)
            for k in range(ranked.shape[1])
            if plain[p, k] > options.threshold and x[p] <= width and y[p] <= height
        ]
        for score, k, p in sorted(level, reverse=True)[: options.candidates]:
            x1, y1, x2, y2 = boxes[p].tolist()
            limits = (width, height, width, height)
            clipped = [
                min(max(side, 0.0), limit)
                for side, limit in zip((x1, y1, x2, y2), limits, strict=True)
            ]
            found.append((score, k, clipped))
        start += count
    kept: list[Row] = []
    for row in sorted(found, key=lambda r: -r[0]):
        if all(row[1] != k or overlap(row[2], box) <= options.iou for _, k, box in kept):
            kept.append(row)
    return kept[: options.most]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("options", [{}, {"candidates": 20, "most": 15, "iou": 0.3}])
def test_detections_are_those_of_a_plain_loop(family: str, options: dict[str, float]) -> None:
    out = raw(family)
    chosen = replace(out.family.suppression, **options)  # type: ignore[arg-type]
    found = detect(out, SIZES, chosen)
    assert found.images == 3 and found.scores is not None
    for image in range(3):
        own = (found.image == image).nonzero().flatten()
        expected = loop(out, image, chosen)
        assert len(own) == len(expected) > 2
        for place, (score, label, box) in zip(own.tolist(), expected, strict=True):
            assert float(found.scores[place]) == pytest.approx(score, rel=1e-5)
            assert int(found.labels[place]) == label
            assert found.boxes[place].tolist() == pytest.approx(box, rel=1e-4, abs=1e-3)


def test_nothing_above_the_threshold_is_no_detection() -> None:
    out = raw("gfocal")
    found = detect(replace(out, scores=out.scores - 100), SIZES)
    assert found.boxes.shape == (0, 4) and found.images == 3 and len(found.labels) == 0


def test_the_best_comes_first_and_images_stay_apart() -> None:
    found = detect(raw("atss"), SIZES)
    assert found.scores is not None
    assert (found.image.diff() >= 0).all()
    for image in range(3):
        scores = found.scores[found.image == image]
        assert (scores.diff() <= 0).all() and len(scores) <= 100


def test_boxes_stay_inside_the_image_before_padding() -> None:
    found = detect(raw("retinanet", spread=4.0), SIZES)
    second = found.boxes[found.image == 1]
    assert second[:, 2].max() <= 50 and second[:, 3].max() <= 40 and second.min() >= 0


def test_boxes_of_different_classes_do_not_suppress_each_other() -> None:
    out = raw("fcos")
    scores = torch.full_like(out.scores, -50.0)
    scores[0, 10] = torch.tensor([3.0, 2.0, -50.0])
    found = detect(replace(out, scores=scores), SIZES)
    assert found.labels.tolist() == [0, 1] and torch.equal(found.boxes[0], found.boxes[1])
