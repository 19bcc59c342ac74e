"""Assigners: which object each prior is responsible for, for all images of a batch at once.

Objects are stored flat, so a pair (object, prior) is an entry of a matrix (M, P), and an image is a
group of its rows. Nothing here waits for a device: all shapes are known in advance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stillhouse.batches import Objects
from stillhouse.functional.boxes import box_area, centre, pairwise_iou
from stillhouse.functional.boxes import iou as elementwise_iou
from stillhouse.models.detectors.coding import encode_distances
from stillhouse.models.detectors.priors import Priors

BACKGROUND, IGNORED = -1, -2  # in the index of an assignment


@dataclass(frozen=True, eq=False)
class Assignment:
    """The object of each prior, for N images and P priors."""

    index: Tensor  # (N, P) int64: object, BACKGROUND or IGNORED
    labels: Tensor  # (N, P) int64: class, or -1
    boxes: Tensor  # (N, P, 4) of the object, or of the prior itself

    @property
    def positive(self) -> Tensor:
        """Which priors have an object: -> (N, P) bool."""
        return self.index >= 0

    @property
    def counted(self) -> Tensor:
        """Which priors count in the loss of classes: -> (N, P) bool."""
        return self.index != IGNORED

    @property
    def positives(self) -> Tensor:
        """The number of priors with an object in each image: -> (N,) int64."""
        return self.positive.sum(1)

    @property
    def mass(self) -> Tensor:
        """The sum over images of max(positives, 1), which class losses are divided by: -> ()."""
        return self.positives.clamp(min=1).sum()


def make_assignment(index: Tensor, objects: Objects, priors: Tensor) -> Assignment:
    """The labels and boxes of an index (N, P): priors (P, 4) or (N, P, 4)."""
    if not len(objects.labels):
        boxes = priors.expand(*index.shape, 4)
        return Assignment(index, torch.full_like(index, -1), boxes)
    known, place = index >= 0, index.clamp(min=0)
    labels = objects.labels[place].where(known, -1)
    boxes = objects.boxes.to(priors.dtype)[place].where(known[..., None], priors)
    return Assignment(index, labels, boxes)


def best_objects(values: Tensor, objects: Objects) -> tuple[Tensor, Tensor]:
    """For each image and prior the largest value, and the first object that has it.

    (M, P) -> (N, P), (N, P) int64; -inf and BACKGROUND where no object has a value above -inf.
    """
    count, priors = values.shape
    image = objects.image[:, None].expand(count, priors)
    best = values.new_full((objects.images, priors), -math.inf)
    best = best.scatter_reduce(0, image, values, "amax")
    number = torch.arange(count, device=values.device)[:, None].expand(count, priors)
    is_best = (values == best[objects.image]) & (values > -math.inf)
    index = torch.full_like(best, count, dtype=torch.int64)
    index = index.scatter_reduce(0, image, number.where(is_best, count), "amin")
    return best, index.where(index < count, BACKGROUND)


def assign_by_iou(
    objects: Objects,
    boxes: Tensor,
    positive: float = 0.5,
    negative: float = 0.4,
    least: float = 0.0,
) -> Tensor:
    """The object of the highest IoU: priors (P, 4) or, for each image, (N, P, 4) -> (N, P).

    A prior is positive from `positive` on, background below `negative`, ignored between. The best
    priors of each object are positive for it, if they overlap and their IoU is at least `least`; of
    several such objects the last counts. Ignored objects do not take part.
    """
    if boxes.ndim == 3:
        overlap = elementwise_iou(objects.boxes[:, None].to(boxes.dtype), boxes[objects.image])
    else:
        overlap = pairwise_iou(objects.boxes.to(boxes.dtype), boxes)
    overlap = overlap.masked_fill(objects.ignored[:, None], -math.inf)
    best, index = best_objects(overlap, objects)
    between = (best >= negative) & (best < positive)
    index = index.where(best >= positive, BACKGROUND).masked_fill(between, IGNORED)
    if not len(overlap):
        return index
    highest = overlap.amax(1, keepdim=True)
    is_highest = (overlap == highest) & (highest > 0) & (highest >= least)
    number = torch.arange(len(overlap), device=overlap.device)[:, None].expand_as(overlap)
    forced = torch.full_like(index, BACKGROUND).scatter_reduce(
        0,
        objects.image[:, None].expand_as(overlap),
        number.where(is_highest, BACKGROUND),
        "amax",
    )
    return forced.where(forced >= 0, index)


def assign_by_centre(
    objects: Objects, priors: Priors, ranges: Sequence[tuple[float, float]], radius: float = 0.0
) -> Tensor:
    """The smallest object that a point lies in and whose size belongs to its level: -> (N, P).

    An object belongs to a level for a point if the largest distance from the point to its sides
    is in the level's range, both ends included, as in FCOS (Tian et al., 2019). With a `radius`,
    the point must be within so many strides of the object's centre, too.
    """
    points, boxes = priors.centres, objects.boxes.to(priors.boxes.dtype)
    distances = encode_distances(boxes[:, None], points)
    inside = distances.amin(-1) > 0
    if radius:
        near = (points - centre(boxes)[:, None]).abs().amax(-1) < radius * priors.stride
        inside &= near
    largest = distances.amax(-1)
    low, high = (
        torch.cat(
            [
                points.new_full((count,), bound[side])
                for count, bound in zip(priors.counts, ranges, strict=True)
            ]
        )
        for side in (0, 1)
    )
    fits = inside & (largest >= low) & (largest <= high) & ~objects.ignored[:, None]
    return best_objects(-box_area(boxes)[:, None].where(fits, math.inf), objects)[1]


def assign_adaptively(objects: Objects, priors: Priors, candidates: int = 9) -> Tensor:
    """ATSS (Zhang et al., 2020): a threshold of IoU for each object: -> (N, P).

    The `candidates` nearest priors of each level, by centre, are candidates. Those are positive
    whose IoU is at least the mean plus the sample standard deviation of the candidates' IoU and
    whose centre is inside by more than 0.01 pixels. A prior of several objects goes to that of the
    highest IoU.
    """
    boxes = objects.boxes.to(priors.boxes.dtype)
    overlap = pairwise_iou(boxes, priors.boxes)
    offset = priors.centres - centre(boxes)[:, None]
    distance = offset.square().sum(-1)
    chosen = nearest_per_level(distance, priors, candidates)
    among = overlap.gather(1, chosen)
    threshold = adaptive_threshold(among)
    inside = encode_distances(boxes[:, None], priors.centres).amin(-1) > 0.01
    passes = (among >= threshold) & inside.gather(1, chosen) & ~objects.ignored[:, None]
    values = torch.full_like(overlap, -math.inf)
    values = values.scatter(1, chosen, among.masked_fill(~passes, -math.inf))
    return best_objects(values, objects)[1]


def adaptive_threshold(overlaps: Tensor) -> Tensor:
    """The mean plus the sample standard deviation of the candidates' IoU: (M, K) -> (M, 1)."""
    mean = overlaps.mean(1, keepdim=True)
    variance = (overlaps - mean).square().sum(1, keepdim=True) / max(1, overlaps.shape[1] - 1)
    return mean + variance.sqrt()


def nearest_per_level(distance: Tensor, priors: Priors, count: int) -> Tensor:
    """The indices of the `count` smallest distances of each level: (M, P) -> (M, K)."""
    found, start = [], 0
    for size, part in zip(priors.counts, distance.split(priors.counts, 1), strict=True):
        found.append(part.topk(min(count, size), dim=1, largest=False).indices + start)
        start += size
    return torch.cat(found, 1)


def assign_nearest(objects: Objects, priors: Priors, scale: float = 4.0) -> Tensor:
    """The nearest point of an object at the level of its size: RepPoints' first stage -> (N, P).

    The level is the one whose stride is 2^floor(log2(sqrt(w h) / scale)), at the nearest end of the
    pyramid. Distances are divided by the object's sides; a point of several objects goes to the
    nearest.
    """
    boxes = objects.boxes.to(priors.boxes.dtype)
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-6)
    level = priors.stride.log2().round()
    lowest, highest = (float(s.bit_length() - 1) for s in (priors.strides[0], priors.strides[-1]))
    wanted = ((sides / scale).log2().sum(1) / 2).trunc().clamp(lowest, highest)
    offset = (priors.centres - centre(boxes)[:, None]) / sides[:, None]
    distance = offset.square().sum(-1).sqrt().masked_fill(level != wanted[:, None], math.inf)
    nearest = distance.argmin(1, keepdim=True)
    values = torch.full_like(distance, -math.inf).scatter(1, nearest, -distance.gather(1, nearest))
    return best_objects(values.masked_fill(objects.ignored[:, None], -math.inf), objects)[1]
