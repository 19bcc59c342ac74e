"""Images with objects and detections, as batches for a meter and as data of pycocotools."""

from __future__ import annotations

import contextlib
import io
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from stillhouse.batches import Batch, Objects
from stillhouse.tasks.meters.box_precision import BoxPrecision
from stillhouse.types import Trace

Box = list[float]


@dataclass
class Truth:
    label: int
    box: Box
    crowd: bool = False
    difficult: bool = False
    area: float | None = None

    @property
    def size(self) -> float:
        return area(self.box) if self.area is None else self.area


@dataclass
class Found:
    label: int
    score: float
    box: Box


@dataclass
class Scene:
    """One image."""

    key: int
    truth: list[Truth] = field(default_factory=list)
    found: list[Found] = field(default_factory=list)


def area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def overlap(a: Box, b: Box, crowd: bool = False) -> float:
    """IoU of a detection and an object, or of a crowd the part of the detection in it."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / area(a) if crowd else shared / (area(a) + area(b) - shared)


# ------------------------------------------------------------------------------------------ random


def random_scenes(seed: int, images: int = 12, classes: int = 4, crowded: int = 0) -> list[Scene]:
    """Objects of all sizes, some without detections and detections without objects.

    Scores have one digit, so many are equal; boxes lie on a grid of 1/4 pixel, so they are exact.
    The first image has `crowded` more detections; the last but one is empty, the last has none.
    """
    chance = random.Random(seed)
    scenes = [random_scene(chance, 7 * key % 101, classes) for key in range(images)]
    scenes[0].found += [near(chance, random_box(chance), 0, classes) for _ in range(crowded)]
    scenes[-2].truth, scenes[-2].found = [], []
    scenes[-1].found = []
    return scenes


def random_scene(chance: random.Random, key: int, classes: int) -> Scene:
    scene = Scene(key)
    for _ in range(chance.randrange(8)):
        size = chance.choice([None, 16.0 * chance.randrange(1, 900)])
        flags = (chance.random() < 0.15, chance.random() < 0.1)
        truth = Truth(chance.randrange(classes - 1), random_box(chance), *flags, area=size)
        scene.truth.append(truth)
        for _ in range(chance.choice([0, 1, 1, 1, 2, 3])):
            scene.found.append(near(chance, truth.box, truth.label, classes))
    for _ in range(chance.randrange(4)):
        scene.found.append(near(chance, random_box(chance), 0, classes))
    chance.shuffle(scene.found)
    return scene


def random_box(chance: random.Random) -> Box:
    x, y = (chance.randrange(400) / 4 for _ in range(2))
    width, height = (chance.choice([10, 30, 60, 140]) + chance.randrange(40) / 4 for _ in range(2))
    return [x, y, x + width, y + height]


def near(chance: random.Random, box: Box, label: int, classes: int) -> Found:
    """A detection of a box, shifted by up to a third of it, of another class now and then."""
    moved = list(box)
    for side in range(4):
        third = int((box[side % 2 + 2] - box[side % 2]) * 4 / 3)
        moved[side] += chance.choice([0, 0, 1]) * chance.randint(-third, third) / 4
    moved[2], moved[3] = max(moved[2], moved[0] + 1), max(moved[3], moved[1] + 1)
    other = chance.random() < 0.25
    return Found(chance.randrange(classes) if other else label, chance.randrange(11) / 10, moved)


# ----------------------------------------------------------------------------------------- batches


def detect(trace: Trace, batch: Batch[Objects]) -> Objects:
    """A network that says its detections."""
    found: Objects = trace.out
    return found


def tensor(rows: Sequence[Any], *shape: int, dtype: torch.dtype = torch.double) -> Tensor:
    return torch.tensor(rows, dtype=dtype).reshape(len(rows), *shape)


def batch_of(scenes: Sequence[Scene]) -> tuple[Trace, Batch[Objects]]:
    """One batch of images of 160 x 200 that were neither resized nor padded."""
    truth = [(index, one) for index, scene in enumerate(scenes) for one in scene.truth]
    found = [(index, one) for index, scene in enumerate(scenes) for one in scene.found]
    target = Objects(
        tensor([one.box for _, one in truth], 4),
        tensor([one.label for _, one in truth], dtype=torch.long),
        tensor([index for index, _ in truth], dtype=torch.long),
        len(scenes),
        crowd=tensor([one.crowd for _, one in truth], dtype=torch.bool),
        difficult=tensor([one.difficult for _, one in truth], dtype=torch.bool),
        area=tensor([one.size for _, one in truth]),
    )
    detections = Objects(
        tensor([one.box for _, one in found], 4),
        tensor([one.label for _, one in found], dtype=torch.long),
        tensor([index for index, _ in found], dtype=torch.long),
        len(scenes),
        scores=tensor([one.score for _, one in found]),
    )
    keys = torch.tensor([scene.key for scene in scenes])
    images = torch.zeros(len(scenes), 1, 160, 200)
    return Trace(detections), Batch(images, target, keys, torch.zeros_like(keys))


def measure(
    scenes: Sequence[Scene], classes: int | None = 4, protocol: Any = "coco", batch: int = 5
) -> BoxPrecision:
    """A meter that has seen these images."""
    meter = BoxPrecision(classes, detect, protocol)
    for first in range(0, len(scenes), batch):
        meter.update(*batch_of(scenes[first : first + batch]))
    return meter


# ------------------------------------------------------------------------------------- pycocotools


def pycocotools_evaluation(scenes: Sequence[Scene], classes: int = 4) -> Any:
    """The finished evaluation of the reference; difficult objects have an area beyond all sizes."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, found = COCO(), COCO()
    for coco, rows in ((truth, annotated_truth(scenes)), (found, annotated_found(scenes))):
        coco.dataset = {
            "images": [{"id": scene.key} for scene in scenes],
            "categories": [{"id": label} for label in range(classes)],
            "annotations": [{"id": index + 1, **row} for index, row in enumerate(rows)],
        }
    with contextlib.redirect_stdout(io.StringIO()):
        for coco in (truth, found):
            coco.createIndex()
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def annotated_truth(scenes: Sequence[Scene]) -> list[dict[str, Any]]:
    return [
        {
            "image_id": scene.key,
            "category_id": one.label,
            "bbox": [*one.box[:2], one.box[2] - one.box[0], one.box[3] - one.box[1]],
            "area": 1e12 if one.difficult else one.size,
            "iscrowd": int(one.crowd),
        }
        for scene in scenes
        for one in scene.truth
    ]


def annotated_found(scenes: Sequence[Scene]) -> list[dict[str, Any]]:
    return [
        {
            "image_id": scene.key,
            "category_id": one.label,
            "bbox": [*one.box[:2], one.box[2] - one.box[0], one.box[3] - one.box[1]],
            "area": area(one.box),
            "iscrowd": 0,
            "score": one.score,
        }
        for scene in scenes
        for one in scene.found
    ]
