"""Average precision of boxes by the protocol of COCO, computed by `faster_coco_eval`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from stillhouse.tasks.meters.detection_rows import DetectionRows, ObjectRows, Rows
from stillhouse.tasks.meters.precision_curve import Curve

RECALLS = torch.from_numpy(np.linspace(0, 1, 101))  # the same doubles as in pycocotools
NAMES = (  # of the first nine numbers of pycocotools; recalls by size are left out
    "ap",
    "ap50",
    "ap75",
    "ap_small",
    "ap_medium",
    "ap_large",
    "ar1",
    "ar10",
    "ar100",
)
BY_SIZE = ("ap_small", "ap_medium", "ap_large")

Annotation = dict[str, Any]  # of an image, an object or a detection


@dataclass(frozen=True, eq=False)
class CocoPrecision:
    """The result of COCO, in [0, 1], with NaN where there is no object to find."""

    stats: Tensor  # (12,) double, in the order of pycocotools
    precision: Tensor  # (T, R, C) double: IoU .5 to .95, recall 0 to 1, class; objects of any size

    @property
    def per_class(self) -> Tensor:
        """AP of each class, a mean over IoUs and recalls: -> (C,)."""
        return self.precision.mean((0, 1))

    def curve(self, label: int) -> Curve:
        """The interpolated curve of one class at IoU .5."""
        return Curve(RECALLS, self.precision[0, :, label])

    def scores(self) -> Mapping[str, float]:
        """The scores by name, in percent.

        Without objects the scores are 0, and those of a size that no object has are left out.
        """
        named = zip(NAMES, (100 * self.stats).tolist(), strict=False)
        return {
            name: 0.0 if math.isnan(value) else value
            for name, value in named
            if not (math.isnan(value) and name in BY_SIZE)
        }


def coco_precision(rows: Rows, classes: int) -> CocoPrecision:
    """The result for rows that are in order.

    At most 100 detections of an image and class count; a limit over all classes is up to the
    detector. Difficult objects are ignored whatever their size, but unlike crowds, each by one
    detection.
    """
    images = [{"id": key} for key in rows.images.tolist()]
    objects, detections = annotate_objects(rows.objects), annotate_detections(rows.detections)
    return evaluate_annotations(images, classes, objects, detections)


def evaluate_annotations(
    images: list[Annotation],
    classes: int,
    objects: list[Annotation],
    detections: list[Annotation],
    kind: Literal["bbox", "segm", "boundary"] = "bbox",
) -> CocoPrecision:
    """The result for images, objects and detections in the fields of COCO's files."""
    from faster_coco_eval import COCO, COCOeval_faster

    header = {"images": images, "categories": [{"id": label} for label in range(classes)]}
    truth = COCO(header | {"annotations": objects})
    found = COCO(header | {"annotations": detections})
    evaluation = COCOeval_faster(truth, found, kind)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return CocoPrecision(
        _without_negative(evaluation.stats),
        _without_negative(evaluation.eval["precision"][..., 0, -1]),
    )


def annotate_objects(objects: ObjectRows) -> list[Annotation]:
    """The fields of objects, without masks; difficult ones have an infinite area."""
    # An area beyond all ranges is how an object is ignored that is not a crowd.
    area = objects.area.masked_fill(objects.difficult > 0, math.inf)
    return _annotate(objects.key, objects.label, objects.box, area, iscrowd=objects.crowd)


def annotate_detections(found: DetectionRows) -> list[Annotation]:
    """The fields of detections, without masks; areas are those of boxes."""
    area = (found.box[:, 2:] - found.box[:, :2]).prod(1)
    return _annotate(found.key, found.label, found.box, area, score=found.score)


def _annotate(
    key: Tensor, label: Tensor, box: Tensor, area: Tensor, **more: Tensor
) -> list[Annotation]:
    """One dictionary per row, with boxes as x, y, width, height."""
    columns = (
        {
            "id": torch.arange(1, len(key) + 1),  # 0 would mean unmatched
            "image_id": key,
            "category_id": label,
            "bbox": torch.cat([box[:, :2], box[:, 2:] - box[:, :2]], 1),
            "area": area,
        }
        | more
    )
    values = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in values]


def _without_negative(values: Any) -> Tensor:
    """An array as a tensor, with NaN for the library's -1."""
    tensor = torch.from_numpy(np.array(values, dtype=np.double))
    return tensor.masked_fill(tensor < 0, math.nan)
