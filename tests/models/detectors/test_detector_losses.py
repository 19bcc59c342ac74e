"""Losses of the families against plain loops in float64, and their normalisers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from detectors import FAMILIES, small_detector, some_batch
from stillhouse.batches import Batch, Objects
from stillhouse.distributed import combine
from stillhouse.functional.focal import distribution_focal, focal, quality_focal
from stillhouse.models.detectors.assign import Assignment
from stillhouse.models.detectors.output import Dense
from stillhouse.models.detectors.reppoints import RepPointsAssignment
from stillhouse.tasks.detection import Detection
from stillhouse.types import Term, Terms, Trace

COUNTS = (2, 0, 3)
Box = list[float]


def predictions(family: str, batch: Batch[Objects]) -> tuple[Dense, Assignment]:
    """Raw predictions that are not those of the start, and their assignment."""
    detector = small_detector(family).double()
    out = detector(batch.images)
    random = torch.Generator().manual_seed(7)

    def noisy(part: Tensor | None, spread: float) -> Tensor | None:
        if part is None:
            return None
        noise = torch.randn(part.shape, generator=random, dtype=part.dtype)
        return (part + spread * noise).detach().requires_grad_()

    made: Any = {
        "scores": noisy(out.scores + 3, 1.0),
        "boxes": noisy(out.boxes + (1.5 if family == "fcos" else 0), 0.5),
        "quality": noisy(out.quality, 1.0),
        "initial": noisy(out.initial, 0.5),
    }
    out = replace(out, **made)
    return out, out.family.assign(out, batch.target)


# ---------------------------------------------------------------------------------- plain formulas


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def focal_loss(z: float, present: bool) -> float:
    p = sigmoid(z)
    return -0.25 * (1 - p) ** 2 * math.log(p) if present else -0.75 * p**2 * math.log(1 - p)


def cross_entropy(z: float, target: float) -> float:
    p = sigmoid(z)
    return -target * math.log(p) - (1 - target) * math.log(1 - p)


def overlaps(a: Box, b: Box) -> tuple[float, float]:
    """IoU and GIoU."""
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(
        0.0, min(a[3], b[3]) - max(a[1], b[1])
    )
    union = sum((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)) - shared
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return shared / union, shared / union - (hull - union) / hull


def centre_of(box: Box, point: list[float]) -> float:
    (x, y), (x1, y1, x2, y2) = point, box
    across, down = sorted((x - x1, x2 - x)), sorted((y - y1, y2 - y))
    return math.sqrt(across[0] / across[1] * down[0] / down[1])


def decoded(family: str, raw: list[float], prior: Box, stride: float) -> Box:
    x, y = (prior[0] + prior[2]) / 2, (prior[1] + prior[3]) / 2
    w, h = prior[2] - prior[0], prior[3] - prior[1]
    if family == "fcos":
        far = [math.exp(z) for z in raw]
    elif family == "gfocal":
        far = []
        for side in range(4):
            bins = [math.exp(z) for z in raw[17 * side : 17 * side + 17]]
            far.append(stride * sum(k * b for k, b in enumerate(bins)) / sum(bins))
    elif family == "reppoints":
        return [p * stride + q for p, q in zip(raw, (x, y, x, y), strict=True)]
    else:
        d = (0.1, 0.1, 0.2, 0.2) if family == "atss" else (1, 1, 1, 1)
        x, y = x + raw[0] * d[0] * w, y + raw[1] * d[1] * h
        w, h = w * math.exp(raw[2] * d[2]), h * math.exp(raw[3] * d[3])
        return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
    return [x - far[0], y - far[1], x + far[2], y + far[3]]


class Loop:
    """All priors of all images, one at a time."""

    def __init__(self, family: str, out: Dense, assigned: Assignment) -> None:
        self.family, self.out, self.assigned = family, out, assigned
        self.priors, self.strides = out.priors.boxes.tolist(), out.priors.stride.tolist()
        self.scores, self.boxes = out.scores.tolist(), out.boxes.tolist()
        self.labels, self.targets = assigned.labels.tolist(), assigned.boxes.tolist()
        self.places = [
            (n, p) for n in range(len(self.labels)) for p in range(len(self.priors))
            if self.labels[n][p] >= 0
        ]  # fmt: skip
        self.count = sum(max(1, sum(x >= 0 for x in row)) for row in self.labels)

    def classes(self) -> float:
        index = self.assigned.index.tolist()
        return sum(
            focal_loss(z, k == self.labels[n][p])
            for n, rows in enumerate(self.scores)
            for p, row in enumerate(rows)
            if index[n][p] != -2
            for k, z in enumerate(row)
        )

    def box(self, n: int, p: int) -> Box:
        return decoded(self.family, self.boxes[n][p], self.priors[p], self.strides[p])

    def centre(self, n: int, p: int) -> float:
        a, b, c, d = self.priors[p]
        return centre_of(self.targets[n][p], [(a + c) / 2, (b + d) / 2])

    def quality(self) -> float:
        raw = self.out.quality
        assert raw is not None
        values = raw.tolist()
        return sum(cross_entropy(values[n][p], self.centre(n, p)) for n, p in self.places)


def retinanet(loop: Loop) -> Mapping[str, float]:
    total = 0.0
    for n, p in loop.places:
        (a, b, c, d), (x1, y1, x2, y2) = loop.priors[p], loop.targets[n][p]
        w, h = c - a, d - b
        wanted = [
            ((x1 + x2) - (a + c)) / 2 / w,
            ((y1 + y2) - (b + d)) / 2 / h,
            math.log((x2 - x1) / w),
            math.log((y2 - y1) / h),
        ]
        total += sum(abs(u - v) for u, v in zip(loop.boxes[n][p], wanted, strict=True))
    return {"class": loop.classes() / loop.count, "box": total / loop.count}


def fcos(loop: Loop) -> Mapping[str, float]:
    weights = [loop.centre(n, p) for n, p in loop.places]
    losses = [-math.log(overlaps(loop.box(n, p), loop.targets[n][p])[0]) for n, p in loop.places]
    return {
        "class": loop.classes() / len(loop.places),
        "box": sum(w * x for w, x in zip(weights, losses, strict=True)) / sum(weights),
        "quality": loop.quality() / len(loop.places),
    }


def atss(loop: Loop) -> Mapping[str, float]:
    weights = [loop.centre(n, p) for n, p in loop.places]
    losses = [1 - overlaps(loop.box(n, p), loop.targets[n][p])[1] for n, p in loop.places]
    total = sum(w * x for w, x in zip(weights, losses, strict=True))
    return {
        "class": loop.classes() / loop.count,
        "box": total / max(1.0, sum(weights)),
        "quality": loop.quality() / loop.count,
    }


def gfocal(loop: Loop) -> Mapping[str, float]:
    total, boxes, edges, weights = 0.0, 0.0, 0.0, 0.0
    for n, rows in enumerate(loop.scores):
        for p, row in enumerate(rows):
            positive = (n, p) in set(loop.places)
            quality = overlaps(loop.box(n, p), loop.targets[n][p])[0] if positive else 0.0
            for k, z in enumerate(row):
                target = quality if k == loop.labels[n][p] else 0.0
                total += abs(target - sigmoid(z)) ** 2 * cross_entropy(z, target)
    for n, p in loop.places:
        weight, stride, target = (
            sigmoid(max(loop.scores[n][p])),
            loop.strides[p],
            loop.targets[n][p],
        )
        a, b, c, d = loop.priors[p]
        x, y = (a + c) / 2, (b + d) / 2
        far = [x - target[0], y - target[1], target[2] - x, target[3] - y]
        for side, distance in enumerate(far):
            z = loop.boxes[n][p][17 * side : 17 * side + 17]
            norm = math.log(sum(map(math.exp, z)))
            t = min(max(distance / stride, 0.0), 15.9)
            low = int(t)
            edges -= (
                weight * ((low + 1 - t) * (z[low] - norm) + (t - low) * (z[low + 1] - norm)) / 4
            )
        boxes += weight * (1 - overlaps(loop.box(n, p), target)[1])
        weights += weight
    least = max(1.0, weights)
    return {"class": total / loop.count, "box": boxes / least, "edge": edges / least}


def reppoints(loop: Loop) -> Mapping[str, float]:
    assert isinstance(loop.assigned, RepPointsAssignment) and loop.out.initial is not None

    def total(stage: Assignment, raw: Any) -> float:
        labels, targets, found = stage.labels.tolist(), stage.boxes.tolist(), 0.0
        for n, row in enumerate(labels):
            for p, label in enumerate(row):
                if label >= 0:
                    stride = loop.strides[p]
                    box = decoded("reppoints", raw[n][p], loop.priors[p], stride)
                    for u, v in zip(box, targets[n][p], strict=True):
                        x = abs(u - v) / (4 * stride)
                        found += x - 0.055 if x >= 0.11 else x * x / 0.22
        return found

    first = loop.assigned.first
    firsts = sum(max(1, sum(x >= 0 for x in row)) for row in first.labels.tolist())
    return {
        "class": loop.classes() / loop.count,
        "box": total(loop.assigned, loop.boxes) / loop.count,
        "initial": total(first, loop.out.initial.tolist()) / firsts,
    }


LOOPS = {
    "retinanet": retinanet,
    "fcos": fcos,
    "atss": atss,
    "gfocal": gfocal,
    "reppoints": reppoints,
}
WEIGHTS = {("gfocal", "box"): 2.0, ("atss", "box"): 2.0, ("gfocal", "edge"): 0.25}
WEIGHTS |= {("reppoints", "initial"): 0.5}


@pytest.mark.parametrize("family", FAMILIES)
def test_terms_are_those_of_a_plain_loop(family: str) -> None:
    out, assigned = predictions(family, some_batch(*COUNTS))
    assert int(assigned.positives.sum()) > 3 and int(assigned.positives[1]) == 0
    terms = out.family.terms(out, assigned)
    expected = LOOPS[family](Loop(family, out, assigned))
    assert set(terms) == set(expected)
    for name, term in terms.items():
        assert float(term.mean().detach()) == pytest.approx(expected[name], rel=1e-9), name
        assert term.weight == WEIGHTS.get((family, name), 1.0)


# ------------------------------------------------------------------------------------------- focal


def test_gradients_of_focal_losses() -> None:
    labels, weight = torch.tensor([0, -1, 2, -1]), torch.tensor([1.0, 1.0, 0.5, 0.0])
    logits = torch.randn(4, 3, dtype=torch.double, requires_grad=True)
    quality = torch.tensor([0.7, 0.0, 0.2, 0.0], dtype=torch.double)
    assert torch.autograd.gradcheck(lambda z: focal(z, labels, weight), logits)
    assert torch.autograd.gradcheck(lambda z: quality_focal(z, labels, quality, weight), logits)
    bins = torch.randn(3, 17, dtype=torch.double, requires_grad=True)
    target = torch.tensor([0.0, 3.25, 15.9], dtype=torch.double)
    assert torch.autograd.gradcheck(lambda z: distribution_focal(z, target), bins)


@pytest.mark.parametrize("size", [1e3, 1e4])
def test_focal_losses_of_huge_logits_are_finite(size: float) -> None:
    logits = torch.tensor([[size, -size], [-size, size]], requires_grad=True)
    labels, weight = torch.tensor([0, 0]), torch.ones(2)
    for loss in (
        focal(logits, labels, weight),
        quality_focal(logits, labels, torch.tensor([1.0, 0.5]), weight),
    ):
        (slope,) = torch.autograd.grad(loss, logits)
        assert loss.isfinite() and slope.isfinite().all()


def test_focal_losses_are_computed_in_full_precision() -> None:
    logits, labels = torch.randn(64, 8), torch.randint(-1, 8, (64,))
    exact = focal(logits.bfloat16().double(), labels, torch.ones(64))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = focal(logits.bfloat16(), labels, torch.ones(64))
    assert found.dtype == torch.float32 and float(found) == pytest.approx(float(exact), rel=1e-5)


# -------------------------------------------------------------------------------------- properties


def terms_of(detector: torch.nn.Module, batch: Batch[Objects]) -> Terms:
    task, trace = Detection(5), Trace(detector(batch.images))
    return task.supervise(trace, batch, task.assign(trace, batch))


def slopes_of(detector: torch.nn.Module, terms: Mapping[str, Term]) -> list[Tensor | None]:
    detector.zero_grad()
    combine(dict(terms)).backward()
    return [p.grad for p in detector.parameters()]


@pytest.mark.parametrize("family", FAMILIES)
def test_images_without_boxes_train_only_the_classes(family: str) -> None:
    detector = small_detector(family).double()
    terms = terms_of(detector, some_batch(0, 0))
    for name, term in terms.items():
        assert term.total.isfinite() and (name == "class" or float(term.total.detach()) == 0), name
    slopes = slopes_of(detector, terms)
    assert all(slope is not None and slope.isfinite().all() for slope in slopes)
    assert float(terms["class"].mean().detach()) > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_images_without_labels_add_nothing(family: str) -> None:
    detector = small_detector(family).double()
    batch = replace(some_batch(1, 2), target=None)
    terms = terms_of(detector, batch)
    slopes = slopes_of(detector, terms)
    assert all(float(t.total.detach()) == 0 and float(t.mass) == 0 for t in terms.values())
    assert all(slope is None or bool((slope == 0).all()) for slope in slopes)


@pytest.mark.parametrize("family", FAMILIES)
def test_ignored_objects_are_not_learnt(family: str) -> None:
    detector, batch = small_detector(family).double(), some_batch(2, 1)
    crowd = torch.tensor([False, True, False])
    without = replace(batch, target=batch.target.objects(~crowd))
    ignored = replace(batch, target=replace(batch.target, crowd=crowd))
    for name, term in terms_of(detector, without).items():
        other = terms_of(detector, ignored)[name]
        assert torch.equal(term.total, other.total) and torch.equal(term.mass, other.mass), name


@pytest.mark.parametrize("family", FAMILIES)
def test_the_order_of_objects_and_images_does_not_matter(family: str) -> None:
    detector, batch = small_detector(family).double().eval(), some_batch(3, 0, 2)
    turned = batch.rows(torch.tensor([2, 0, 1]))
    shuffled = replace(batch, target=batch.target.objects(torch.tensor([2, 0, 1, 4, 3])))
    for name, term in terms_of(detector, batch).items():
        for other in (turned, shuffled):
            mean = terms_of(detector, other)[name].mean()
            torch.testing.assert_close(mean, term.mean(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_autocast_leaves_losses_in_float32(family: str) -> None:
    detector, batch = small_detector(family), some_batch(2, 1)
    batch = replace(batch, images=batch.images.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = terms_of(detector, batch)
    assert all(t.total.dtype == torch.float32 and t.total.isfinite() for t in terms.values())
    assert all(s is not None and s.isfinite().all() for s in slopes_of(detector, terms))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_few_steps_lower_the_loss(family: str) -> None:
    detector, batch = small_detector(family), some_batch(2, 3)
    batch = replace(batch, images=batch.images.float())
    optimiser = torch.optim.AdamW(detector.parameters(), 3e-3)
    losses = []
    for _ in range(12):
        optimiser.zero_grad()
        loss = combine(terms_of(detector, batch))
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_the_later_version_of_fcos() -> None:
    """Distances in strides, GIoU weighted by centre-ness, points near the centre only."""
    batch = some_batch(*COUNTS)
    out = small_detector("fcos", later=True).double()(batch.images)
    out = replace(out, boxes=out.boxes.detach() + 1.5)
    assigned = out.family.assign(out, batch.target)
    plain = replace(out.family, radius=0.0).assign(out, batch.target)
    assert 0 < int(assigned.positives.sum()) < int(plain.positives.sum())
    total = weights = 0.0
    loop = Loop("fcos", out, assigned)
    for n, p in loop.places:
        (a, b, c, d), raw, stride = loop.priors[p], loop.boxes[n][p], loop.strides[p]
        x, y = (a + c) / 2, (b + d) / 2
        far = [max(0.0, z) * stride for z in raw]
        box = [x - far[0], y - far[1], x + far[2], y + far[3]]
        weight = loop.centre(n, p)
        total += weight * (1 - overlaps(box, loop.targets[n][p])[1])
        weights += weight
    found = out.family.terms(out, assigned)["box"].mean()
    assert float(found.detach()) == pytest.approx(total / max(1.0, weights), rel=1e-9)
