"""What is written of instances: COCO JSON with run-length codes, a table, and drawn images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from stillhouse.batches import Batch, Objects, image_sizes
from stillhouse.data.targets import SampleTarget, resize_mask
from stillhouse.explain.drawing import class_colour
from stillhouse.explain.instance_drawing import MaskMark, draw_instances
from stillhouse.files import csv_text, write_text
from stillhouse.functional.mask_boxes import boxes_around
from stillhouse.runs.detection_files import DetectionWriter
from stillhouse.runs.mask_files import save
from stillhouse.runs.prediction_inputs import Picture, Seen
from stillhouse.types import Trace

TABLE = "instances.csv"
COLUMNS = ("path", "class", "score", "x1", "y1", "x2", "y2", "area")


class InstanceWriter(DetectionWriter):
    """Instances in the format of COCO and as a table, and a drawn image of each input.

    Masks are compressed run-length codes of the size of the images as they were read, boxes are
    those around the masks.
    """

    file: str = "instances.json"
    what: ClassVar[str] = "instance"

    def target(self, image: Tensor) -> SampleTarget:
        """No objects."""
        none = torch.zeros(0, dtype=torch.int64)
        masks = torch.zeros(0, *image.shape[1:], dtype=torch.bool)
        return Objects(torch.zeros(0, 4), none, none, masks=masks)

    def names(self, pictures: Sequence[Picture]) -> list[str]:
        """The drawn images, the list and the table."""
        return [*super().names(pictures), TABLE]

    def add(self, trace: Trace, batch: Batch[Any], seen: Seen) -> None:
        """Draw the images of a batch, and keep their instances."""
        sizes = image_sizes(batch).tolist()
        images = zip(self.task.segment(trace, batch), sizes, *seen, strict=True)
        for found, (height, width), picture, pixels in images:
            assert found.masks is not None and found.scores is not None
            size = (pixels.shape[-2], pixels.shape[-1])
            masks = resize_mask(found.masks[:, :height, :width].cpu(), *size)
            kept = (found.scores.cpu() >= self.threshold) & masks.flatten(1).any(1)
            labels, scores = found.labels.cpu()[kept].tolist(), found.scores.cpu()[kept].tolist()
            self.draw(picture, pixels, masks[kept], list(zip(labels, scores, strict=True)))
            image = {"file_name": picture.name, "height": size[0], "width": size[1]}
            self.images.append({"id": picture.number, **image})
            self.annotations += annotations_of(masks[kept], labels, scores, picture.number)

    def finish(self) -> str:
        """Write the list and the table."""
        said = super().finish()
        names = {image["id"]: image["file_name"] for image in self.images}
        ordered = sorted(self.annotations, key=lambda one: one["image_id"])
        rows = [self.row(one, names) for one in ordered]
        write_text(self.out / TABLE, csv_text(rows, COLUMNS))
        return said

    def row(self, one: dict[str, Any], names: dict[int, str]) -> dict[str, Any]:
        """The row of one instance."""
        x, y, width, height = one["bbox"]
        values = (
            names[one["image_id"]],
            self.classes[one["category_id"] - 1],
            one["score"],
            *(x, y, x + width, y + height),
            one["area"],
        )
        return dict(zip(COLUMNS, values, strict=True))

    def draw(
        self, picture: Picture, pixels: Tensor, masks: Tensor, named: list[tuple[int, float]]
    ) -> None:
        """The masks over the image with their class and score, the best on top."""
        marks = [
            MaskMark(mask.numpy(), f"{self.classes[label]} {score:.2f}", class_colour(label))
            for mask, (label, score) in zip(masks, named, strict=True)
        ]
        save(draw_instances(pixels, marks[::-1]), self.out / picture.drawn)


def annotations_of(
    masks: Tensor, labels: list[int], scores: list[float], image: int
) -> Iterator[dict[str, Any]]:
    """One annotation for each mask: (K, H, W) bool."""
    from faster_coco_eval.core import mask as library

    boxes = boxes_around(masks).tolist()
    for mask, label, score, (x1, y1, x2, y2) in zip(masks, labels, scores, boxes, strict=True):
        code: Any = library.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
        counts = code["counts"]
        yield {
            "image_id": image,
            "category_id": label + 1,
            "segmentation": {
                "size": list(mask.shape),
                "counts": counts.decode() if isinstance(counts, bytes) else counts,
            },
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": int(mask.sum()),
            "iscrowd": 0,
            "score": round(score, 6),
        }
