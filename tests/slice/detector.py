"""A tiny dense detector with one level, and its task: only to try the machinery on boxes.

Scores (N, P, C) and distances (N, P, 4) at the P points of one map, anchor-free.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillhouse.batches import Batch, Objects, read_batch
from stillhouse.data.embedded.scenes import make_scenes
from stillhouse.data.source import Pixels
from stillhouse.errors import UserError
from stillhouse.types import Clock, Lesson, Site, Term, Terms, Trace

STRIDE = 8
KEPT = 10  # detections per image


class Dense(NamedTuple):
    """Raw predictions at each point."""

    scores: Tensor  # (N, P, C) logits
    boxes: Tensor  # (N, P, 4) x1, y1, x2, y2
    points: Tensor  # (P, 2) x, y


class Assigned(NamedTuple):
    """The object of each point, -1 for background, and the number of positives per image."""

    labels: Tensor  # (N, P) class, -1 for background
    boxes: Tensor  # (N, P, 4)
    positives: Tensor  # (N,)


class Detector(nn.Module):
    """A few convolutions, a neck and two predictions."""

    def __init__(self, width: int, classes: int, channels: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before in (channels, width, width):
            layers += [nn.Conv2d(before, width, 3, 2, 1), nn.Tanh()]
        self.backbone = nn.Sequential(*layers)
        self.neck = nn.Conv2d(width, width, 3, padding=1)
        self.score = nn.Conv2d(width, classes, 1)
        self.box = nn.Conv2d(width, 4, 1)

    def forward(self, images: Tensor) -> Dense:
        level = self.neck(self.backbone(images))
        y, x = (
            torch.arange(side, device=images.device) * STRIDE + STRIDE / 2
            for side in level.shape[2:]
        )
        points = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 2).to(level.dtype)
        far = STRIDE * self.box(level).flatten(2).mT.exp()
        boxes = torch.cat([points - far[..., :2], points + far[..., 2:]], -1)
        return Dense(self.score(level).flatten(2).mT, boxes, points)


def small(classes: int, channels: int = 3) -> nn.Module:
    return Detector(8, classes, channels)


def large(classes: int, channels: int = 3) -> nn.Module:
    return Detector(24, classes, channels)


def source(split: str, count: int) -> Pixels:
    """The embedded scenes with the boxes of their digits."""
    made = make_scenes(split, count)
    image, place = (made.labels >= 0).nonzero(as_tuple=True)
    objects = Objects(made.boxes[image, place], made.labels[image, place], image, count)
    return Pixels(made.images, objects, made.classes, made.fingerprint, f"scenes/{split}")


@dataclass(frozen=True)
class DetectionTask:
    """Points inside an object have its class and its box."""

    classes: int
    headline: ClassVar[str] = "map"
    chance: ClassVar[float] = 0.0
    sites: ClassVar[tuple[str, ...]] = ("class", "box")
    examine: ClassVar[tuple[str, ...]] = ()

    def adapt(self, network: nn.Module) -> nn.Module:
        return network

    def read(self, batch: Any) -> Batch[Objects]:
        return read_batch(batch)

    def inputs(self, batch: Batch[Objects], teacher: Trace | None = None) -> tuple[Tensor]:
        return (batch.images,)

    def check_output(self, output: Any, name: str, images: int) -> None:
        if not isinstance(output, Dense) or output.scores.shape[2] != self.classes:
            raise UserError(f"{name} is not a detector of {self.classes} classes")

    def check_pair(self, student: Dense, teacher: Dense) -> None:
        if student.scores.shape != teacher.scores.shape:
            raise UserError("the detectors have different points")

    def assign(self, student: Trace, batch: Batch[Objects]) -> Assigned:
        points, target = student.out.points, batch.target
        labels = torch.full((len(batch), len(points)), -1, device=points.device)
        boxes = points.new_zeros(len(batch), len(points), 4)
        areas = (target.boxes[:, 2:] - target.boxes[:, :2]).prod(1)
        for index in areas.argsort(descending=True).tolist():  # the smallest object is last
            x1, y1, x2, y2 = target.boxes[index].tolist()
            x, y = points.unbind(1)
            inside = (x > x1) & (x < x2) & (y > y1) & (y < y2)
            labels[target.image[index], inside] = target.labels[index]
            boxes[target.image[index], inside] = target.boxes[index].to(points.dtype)
        return Assigned(labels, boxes, (labels >= 0).sum(1))

    def supervise(self, student: Trace, batch: Batch[Objects], assigned: Any = None) -> Terms:
        out, positive = student.out, assigned.labels >= 0
        hot = F.one_hot(assigned.labels.clamp(min=0), self.classes) * positive[..., None]
        scores = F.binary_cross_entropy_with_logits(
            out.scores, hot.to(out.scores.dtype), reduction="sum"
        )
        far = (out.boxes - assigned.boxes).abs().mean(-1) / STRIDE
        mass = assigned.positives.clamp(min=1).sum().to(scores.dtype)
        return {"class": Term(scores, mass), "box": Term((far * positive).sum(), mass)}

    def lesson(
        self,
        student: Trace,
        teacher: Trace,
        batch: Batch[Objects],
        clock: Clock,
        assigned: Any = None,
    ) -> Lesson:
        sites: dict[str, Site] = {}
        if teacher.out is not None:
            mass = assigned.positives.clamp(min=1).sum().to(student.out.scores.dtype)
            positive = (assigned.labels >= 0).flatten().to(student.out.scores.dtype)
            pairs = (student.out, teacher.out)
            sites["class"] = Site(*(out.scores.flatten(0, 1) for out in pairs), mass=mass)
            boxes = (out.boxes.flatten(0, 1) / STRIDE for out in pairs)
            sites["box"] = Site(*boxes, weight=positive, mass=mass)
        return Lesson(student, teacher, sites, clock, keys=batch.keys, objects=batch.target)

    def select(self, output: Dense, index: Tensor) -> Tensor:
        return output.scores.amax(1).gather(1, index[:, None])[:, 0]

    def storable(self, output: Dense) -> Tensor:
        raise UserError("detections are not stored")

    def passes(self, summary: Mapping[str, float], images: int) -> bool:
        return summary[self.headline] > 1.0

    def meter(self) -> BoxPrecision:
        return BoxPrecision()


class BoxPrecision:
    """Average precision at IoU .5 over all classes together, from rows of all ranks."""

    rows: ClassVar[frozenset[str]] = frozenset({"detections", "objects"})

    def __init__(self) -> None:
        self.parts: dict[str, list[Tensor]] = {"detections": [], "objects": []}

    @torch.no_grad()
    def update(self, trace: Trace, batch: Batch[Objects]) -> None:
        """Rows of detections (key, class, score, box) and of objects (key, class, box)."""
        score, label = trace.out.scores.sigmoid().max(-1)
        best = score.topk(min(KEPT, score.shape[1]), 1).indices
        key = batch.keys[:, None].expand_as(best)
        parts = [key, label.gather(1, best), score.gather(1, best)]
        boxes = trace.out.boxes.gather(1, best[..., None].expand(*best.shape, 4))
        found = torch.cat([torch.stack([x.double() for x in parts], -1), boxes.double()], -1)
        self.parts["detections"].append(found.flatten(0, 1).cpu())
        target = batch.target
        true = torch.stack([batch.keys[target.image], target.labels], 1).double()
        self.parts["objects"].append(torch.cat([true, target.boxes.double()], 1).cpu())

    def state(self) -> Mapping[str, Tensor]:
        widths = {"detections": 7, "objects": 6}
        return {
            name: torch.cat(parts) if parts else torch.zeros(0, widths[name], dtype=torch.double)
            for name, parts in self.parts.items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        self.parts = {name: [rows.cpu()] for name, rows in state.items()}

    def summary(self) -> Mapping[str, float]:
        """Matches are taken greedily by score; precision is interpolated at every recall."""
        state = self.state()
        found, true = state["detections"], state["objects"]
        taken = torch.zeros(len(true), dtype=torch.bool)
        hits = []
        for row in found[found[:, 2].argsort(descending=True, stable=True)]:
            same = (true[:, 0] == row[0]) & (true[:, 1] == row[1]) & ~taken
            overlap = torch.where(same, overlaps(row[3:], true[:, 2:]), 0)
            best = int(overlap.argmax()) if len(overlap) else 0
            hit = bool(len(overlap)) and float(overlap[best]) > 0.5
            hits.append(hit)
            if hit:
                taken[best] = True
        right = torch.tensor(hits, dtype=torch.double).cumsum(0)
        precision = right / torch.arange(1, len(hits) + 1)
        gained = torch.tensor(hits, dtype=torch.double)
        best_later = precision.flip(0).cummax(0).values.flip(0)
        area = float((gained * best_later).sum() / max(1, len(true)))
        return {"map": 100 * area, "objects": float(len(true)), "detections": float(len(found))}


def overlaps(box: Tensor, boxes: Tensor) -> Tensor:
    low, high = torch.maximum(box[:2], boxes[:, :2]), torch.minimum(box[2:], boxes[:, 2:])
    shared = (high - low).clamp(min=0).prod(1)
    areas = [(x[..., 2:] - x[..., :2]).prod(-1) for x in (box, boxes)]
    return shared / (areas[0] + areas[1] - shared)
