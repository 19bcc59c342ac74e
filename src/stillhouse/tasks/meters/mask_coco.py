"""Average precision of masks by the protocol of COCO, computed by `faster_coco_eval`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stillhouse.tasks.meters.coco import (
    Annotation,
    CocoPrecision,
    annotate_detections,
    annotate_objects,
    evaluate_annotations,
)
from stillhouse.tasks.meters.mask_rows import OrderedMasks


def mask_precision(masks: OrderedMasks, classes: int, boundary: bool = False) -> CocoPrecision:
    """The result for masks in order: IoU of masks, or the smaller one of masks and boundaries.

    The boundary of a mask are its pixels within 2 % of the image's diagonal of its edge, which
    includes the border of the image (Cheng et al., 2021). A crowd is compared by its mask. Limits
    and difficult objects are as in `coco_precision`.
    """
    keys, sizes = masks.boxes.images.tolist(), masks.size.tolist()
    images = [
        {"id": key, "height": height, "width": width}
        for key, (height, width) in zip(keys, sizes, strict=True)
    ]
    size = dict(zip(keys, sizes, strict=True))
    objects = _with_codes(annotate_objects(masks.boxes.objects), masks.objects, size)
    detections = _with_codes(annotate_detections(masks.boxes.detections), masks.detections, size)
    for row, area in zip(detections, mask_areas(masks).tolist(), strict=True):
        row["area"] = area
    kind: Any = "boundary" if boundary else "segm"
    return evaluate_annotations(images, classes, objects, detections, kind)


def mask_areas(masks: OrderedMasks) -> Tensor:
    """The area of each detection in pixels of the image as read: -> (D,) double."""
    from faster_coco_eval.core import mask as library

    if not masks.detections:
        return torch.zeros(0, dtype=torch.double)
    place = torch.searchsorted(masks.boxes.images, masks.boxes.detections.key)
    sizes = masks.size[place].tolist()
    codes = [{"size": s, "counts": c} for s, c in zip(sizes, masks.detections, strict=True)]
    return torch.tensor(library.area(codes).tolist(), dtype=torch.double) * masks.scale[place]


def _with_codes(
    rows: list[Annotation], codes: list[bytes], size: dict[int, list[int]]
) -> list[Annotation]:
    return [
        row | {"segmentation": {"size": size[row["image_id"]], "counts": code}}
        for row, code in zip(rows, codes, strict=True)
    ]
