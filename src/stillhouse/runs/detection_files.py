"""What is written of detections: COCO JSON, and drawn images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from stillhouse.batches import Batch, Objects
from stillhouse.data.targets import SampleTarget
from stillhouse.explain.drawing import class_marks, draw_marks
from stillhouse.explain.phrases import count_of
from stillhouse.files import write_json
from stillhouse.runs.mask_files import save
from stillhouse.runs.prediction_inputs import Picture, Seen
from stillhouse.tasks.meters.detection_rows import DetectionRows, collect_rows
from stillhouse.types import Trace


class DetectionWriter:
    """Detections in the format of COCO, and a drawn image of each input.

    The categories and images have ids from 1 on. Boxes are x, y, width, height in pixels of the
    images as they were read. Detections below the task's own least score do not exist.
    """

    file: str = "detections.json"
    what: ClassVar[str] = "detection"

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
        """Write the list."""
        annotations = sorted(self.annotations, key=lambda one: one["image_id"])
        content = {
            "info": {"description": f"{self.what}s with a score of at least {self.threshold:g}"},
            "images": sorted(self.images, key=lambda image: image["id"]),
            "categories": [{"id": n, "name": name} for n, name in enumerate(self.classes, 1)],
            "annotations": [{"id": n, **one} for n, one in enumerate(annotations, 1)],
        }
        write_json(self.out / self.file, content)
        found = count_of(len(self.annotations), self.what)
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
