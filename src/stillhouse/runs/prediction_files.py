"""What is written of predictions: detections as COCO JSON and drawn images, classes as CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from stillhouse.batches import Batch, Objects
from stillhouse.data.targets import SampleTarget
from stillhouse.explain.drawing import class_marks, draw_marks
from stillhouse.explain.phrases import count_of
from stillhouse.files import csv_text, write_json, write_text
from stillhouse.runs.mask_files import MaskWriter, save
from stillhouse.runs.prediction_inputs import Picture, Seen
from stillhouse.tasks.base import Task
from stillhouse.tasks.meters.detection_rows import DetectionRows, collect_rows
from stillhouse.types import Trace

TOP = 5  # classes of an image, for one class per image
PRESENT = 0.5  # the least probability of a class, for several classes per image


class Writer(Protocol):
    """Writes the predictions of one kind of task."""

    file: str  # the name of the list of all predictions

    def target(self, image: Tensor) -> SampleTarget:
        """The target of an image (C, H, W), so that it is loaded as those with labels."""
        ...

    def names(self, pictures: Sequence[Picture]) -> list[str]:
        """The files that are written for these images, relative to the folder."""
        ...

    def add(self, trace: Trace, batch: Batch[Any], seen: Seen) -> None:
        """The predictions of one batch."""
        ...

    def finish(self) -> str:
        """Write the list, and return what it has in a few words."""
        ...


class DetectionWriter:
    """Detections in the format of COCO, and a drawn image of each input.

    The categories and images have ids from 1 on. Boxes are x, y, width, height in pixels of the
    images as they were read. Detections below the task's own least score do not exist.
    """

    file: str = "detections.json"

    def __init__(self, task: Any, classes: tuple[str, ...], out: Path, threshold: float) -> None:
        self.task, self.classes, self.out, self.threshold = task, classes, out, threshold
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def target(self, image: Tensor) -> SampleTarget:
        """No objects."""
        none = torch.zeros(0, dtype=torch.int64)
        return Objects(torch.zeros(0, 4), none, none)

    def names(self, pictures: Sequence[Picture]) -> list[str]:
        """The drawn images and the list."""
        return [*(picture.drawn for picture in pictures), self.file]

    def add(self, trace: Trace, batch: Batch[Any], seen: Seen) -> None:
        """Draw the images of a batch, and keep their detections."""
        found = collect_rows(self.task.detect(trace, batch), batch).detections
        for key, picture, pixels in zip(batch.keys.tolist(), *seen, strict=True):
            sides = found.box[:, 2:] - found.box[:, :2]
            rows = (found.key == key) & (found.score >= self.threshold) & (sides > 0).all(1)
            own = DetectionRows(*(column[rows] for column in found))
            self._draw(picture, pixels, own)
            height, width = pixels.shape[1:]
            image = {"file_name": picture.name, "height": height, "width": width}
            self.images.append({"id": picture.number, **image})
            self.annotations += _annotations(own, picture.number)

    def _draw(self, picture: Picture, pixels: Tensor, found: DetectionRows) -> None:
        labels, scores = found.label.tolist(), found.score.tolist()
        texts = [f"{self.classes[c]} {score:.2f}" for c, score in zip(labels, scores, strict=True)]
        marks = class_marks(found.box.tolist(), labels, texts)
        drawn = draw_marks(pixels, marks[::-1])  # the best is on top
        save(drawn, self.out / picture.drawn)

    def finish(self) -> str:
        """Write detections.json."""
        annotations = sorted(self.annotations, key=lambda one: one["image_id"])
        content = {
            "info": {"description": f"detections with a score of at least {self.threshold:g}"},
            "images": sorted(self.images, key=lambda image: image["id"]),
            "categories": [{"id": n, "name": name} for n, name in enumerate(self.classes, 1)],
            "annotations": [{"id": n, **one} for n, one in enumerate(annotations, 1)],
        }
        write_json(self.out / self.file, content)
        found = count_of(len(self.annotations), "detection")
        return f"{found} with a score of at least {self.threshold:g}"


def _annotations(found: DetectionRows, image: int) -> Iterator[dict[str, Any]]:
    columns = (found.label.tolist(), found.score.tolist(), found.box.tolist())
    for label, score, (x1, y1, x2, y2) in zip(*columns, strict=True):
        yield {
            "image_id": image,
            "category_id": label + 1,
            "bbox": [round(side, 3) for side in (x1, y1, x2 - x1, y2 - y1)],
            "area": round((x2 - x1) * (y2 - y1), 3),
            "iscrowd": 0,
            "score": round(score, 6),
        }


class ClassWriter:
    """A row per image in a CSV table: its path, and the classes with their probabilities."""

    file: str = "predictions.csv"
    what: ClassVar[str] = "the most probable classes"

    def __init__(self, task: Task[Any], classes: tuple[str, ...], out: Path, _: float) -> None:
        self.task, self.classes, self.out = task, classes, out
        self.rows: dict[int, dict[str, Any]] = {}

    def target(self, image: Tensor) -> SampleTarget:
        """None: labels of whole images do not change how these are loaded."""
        return None

    def names(self, pictures: Sequence[Picture]) -> list[str]:
        """The list alone."""
        return [self.file]

    def add(self, trace: Trace, batch: Batch[Any], seen: Seen) -> None:
        """The rows of a batch."""
        scores = self.task.collect(trace).float().cpu()
        for picture, row in zip(seen.pictures, scores, strict=True):
            self.rows[picture.number] = {"path": picture.name, **self.describe(row)}

    def describe(self, logits: Tensor) -> dict[str, str]:
        """The five most probable classes of an image: (C,) -> class_1, probability_1, ..."""
        best = logits.softmax(0).topk(min(TOP, len(logits)))
        described = {}
        for number, (share, label) in enumerate(zip(*map(Tensor.tolist, best), strict=True), 1):
            described[f"class_{number}"] = self.classes[label]
            described[f"probability_{number}"] = f"{share:.6f}"
        return described

    def finish(self) -> str:
        """Write predictions.csv."""
        write_text(self.out / self.file, csv_text([row for _, row in sorted(self.rows.items())]))
        return self.what


class LabelWriter(ClassWriter):
    """The same for several classes per image: `labels` as in `csv/labels`, and `probabilities`."""

    what: ClassVar[str] = f"the classes with a probability above {PRESENT:g}"

    def describe(self, logits: Tensor) -> dict[str, str]:
        """The classes that an image has, the most probable first: (C,) -> both columns."""
        share, label = logits.sigmoid().sort(descending=True, stable=True)
        chosen = [
            (p, c) for p, c in zip(share.tolist(), label.tolist(), strict=True) if p > PRESENT
        ]
        return {
            "labels": ";".join(self.classes[c] for _, c in chosen),
            "probabilities": ";".join(f"{p:.6f}" for p, _ in chosen),
        }


WRITERS: Mapping[str, Callable[[Any, tuple[str, ...], Path, float], Writer]] = {
    "classification": ClassWriter,
    "multilabel": LabelWriter,
    "detection": DetectionWriter,
    "semantic": MaskWriter,
}  # by the name of the task in a recipe
