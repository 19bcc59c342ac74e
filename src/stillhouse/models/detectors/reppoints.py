"""RepPoints (Yang et al., 2019): boxes from nine points, in two stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillhouse.batches import Objects
from stillhouse.functional.deform import deformable_convolution
from stillhouse.functional.dtype import full_precision, upcast
from stillhouse.models.detectors.assign import (
    Assignment,
    assign_by_iou,
    assign_nearest,
    make_assignment,
)
from stillhouse.models.detectors.losses import class_total, masked_sum
from stillhouse.models.detectors.output import Dense, Suppression
from stillhouse.models.detectors.priors import PointGrid
from stillhouse.models.detectors.tower import HeadOutput, Tower, flatten, init_head
from stillhouse.types import Term, Terms

POINTS = 9
BETA = 0.11  # where smooth L1 becomes linear, in units of `scale` strides
POINT_GRADIENT = 0.1  # of the first points, through the offsets of the deformable convolutions
MOMENT_GRADIENT = 0.01


@dataclass(frozen=True, eq=False)
class RepPointsAssignment(Assignment):
    """The assignment of the refined boxes, and that of the first ones."""

    first: Assignment


@dataclass(frozen=True)
class RepPoints:
    """The first points go to the nearest objects, the refined ones by IoU of the first boxes."""

    suppression: Suppression = field(default=Suppression(iou=0.5))
    scale: float = 4.0  # of a point, in strides
    positive: float = 0.5
    negative: float = 0.4
    grid: ClassVar[PointGrid] = PointGrid(0.0)
    neck: ClassVar[dict[str, object]] = {"extra_from": "c5", "norm": True}

    def head(self, before: int, classes: int, levels: int, **options: Any) -> nn.Module:
        """Towers of three convolutions with group norm, and two sets of points."""
        return PointHead(before, classes, **options)

    def assign(self, out: Dense, objects: Objects) -> RepPointsAssignment:
        """The second stage is the assignment; the first is kept beside it."""
        first = assign_nearest(objects, out.priors, self.scale)
        boxes = self.place(out, out.initial).detach()
        second = assign_by_iou(objects, boxes, self.positive, self.negative)
        made = make_assignment(second, objects, boxes)
        return RepPointsAssignment(
            made.index, made.labels, made.boxes, make_assignment(first, objects, out.priors.boxes)
        )

    def terms(self, out: Dense, assigned: Assignment) -> Terms:
        """`class`, `box` of the refined, `initial` of the first boxes, each over its positives."""
        assert isinstance(assigned, RepPointsAssignment)
        total = class_total(out, assigned)
        mass = assigned.mass.to(total.dtype)
        first = assigned.first
        return {
            "class": Term(total, mass),
            "box": Term(self.box_total(out, out.boxes, assigned), mass),
            "initial": Term(
                self.box_total(out, out.initial, first), first.mass.to(total.dtype), 0.5
            ),
        }

    def box_total(self, out: Dense, boxes: Tensor | None, assigned: Assignment) -> Tensor:
        """Smooth L1 of the sides of positive boxes, in units of `scale` strides, summed: -> ()."""
        unit = (self.scale * out.priors.stride)[:, None]
        placed = self.place(out, boxes)
        losses = F.smooth_l1_loss(placed / unit, assigned.boxes / unit, reduction="none", beta=BETA)
        return masked_sum(losses.sum(-1), assigned.positive)

    def place(self, out: Dense, boxes: Tensor | None) -> Tensor:
        """Boxes in strides around their point -> pixels: (N, P, 4)."""
        assert boxes is not None
        points, stride = out.priors.centres, out.priors.stride[:, None]
        return boxes.to(points.dtype) * stride + torch.cat([points, points], -1)

    def decode(self, out: Dense) -> Tensor:
        """-> (N, P, 4)."""
        return self.place(out, out.boxes)

    def probabilities(self, out: Dense) -> Tensor:
        """-> (N, P, C)."""
        return out.scores.sigmoid()


class PointHead(nn.Module):
    """Nine points for each cell, refined by a deformable convolution at the first ones.

    N x (N, before, H, W) -> HeadOutput, whose boxes are x1, y1, x2, y2 in strides around the cell's
    point: the mean of the points, plus and minus their standard deviation times a learnable factor.
    """

    base: Tensor

    def __init__(self, before: int, classes: int, *, width: int = 256, depth: int = 3) -> None:
        from torchvision.ops import DeformConv2d

        super().__init__()
        self.classes = classes
        self.class_tower = Tower(before, width, depth, True)
        self.point_tower = Tower(before, width, depth, True)
        self.initial = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 2 * POINTS, 1)
        )
        self.class_points = DeformConv2d(width, width, 3, padding=1, bias=False)
        self.score = nn.Conv2d(width, classes, 1)
        self.refined_points = DeformConv2d(width, width, 3, padding=1, bias=False)
        self.refined = nn.Conv2d(width, 2 * POINTS, 1)
        self.moment = nn.Parameter(torch.zeros(2))  # x, y: logarithm of the factor
        y, x = torch.meshgrid(torch.arange(-1.0, 2), torch.arange(-1.0, 2), indexing="ij")
        base = torch.stack([y, x], -1).reshape(1, 2 * POINTS, 1, 1)
        self.register_buffer("base", base, persistent=False)
        init_head(self, self.score)

    def forward(self, levels: Sequence[Tensor]) -> HeadOutput:
        """The predictions of all levels."""
        scores, boxes, initial = [], [], []
        for level in levels:
            kinds, places = self.class_tower(level), self.point_tower(level)
            first = self.initial(places)
            slowed = (1 - POINT_GRADIENT) * first.detach() + POINT_GRADIENT * first
            offset = slowed - self.base
            scores.append(
                flatten(self.score(sample(self.class_points.weight, kinds, offset)), self.classes)
            )
            moved = self.refined(sample(self.refined_points.weight, places, offset))
            boxes.append(self.boxes(moved + first.detach()))
            initial.append(self.boxes(first))
        return HeadOutput(torch.cat(scores, 1), torch.cat(boxes, 1), None, torch.cat(initial, 1))

    def boxes(self, points: Tensor) -> Tensor:
        """Nine points y, x of each cell -> x1, y1, x2, y2: (N, 18, H, W) -> (N, H * W, 4)."""
        y, x = upcast(flatten(points, 2 * POINTS)).unflatten(-1, (POINTS, 2)).unbind(-1)
        slowed = (1 - MOMENT_GRADIENT) * self.moment.detach() + MOMENT_GRADIENT * self.moment
        factor = slowed.exp()
        middle = torch.stack([x.mean(-1), y.mean(-1)], -1)
        spread = torch.stack([_deviation(x - middle[..., :1]), _deviation(y - middle[..., 1:])], -1)
        half = spread * factor
        return torch.cat([middle - half, middle + half], -1)


def sample(weight: Tensor, x: Tensor, offset: Tensor) -> Tensor:
    """A deformable convolution and a ReLU: (N, C, H, W), (N, 18, H, W) -> (N, C, H, W).

    It has no kernel for bfloat16, so it is computed in float32 under any autocast.
    """
    with full_precision(x):
        return F.relu(deformable_convolution(upcast(x), upcast(offset), upcast(weight)))


def _deviation(offset: Tensor) -> Tensor:
    """Standard deviation of centred values, with a gradient at 0: (..., K) -> (...)."""
    variance = offset.square().sum(-1) / (offset.shape[-1] - 1)
    return variance.clamp(min=1e-12).sqrt()
