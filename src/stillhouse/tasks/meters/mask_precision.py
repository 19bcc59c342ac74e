"""The meter of instance segmentation: average precision of masks, and of their boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from stillhouse.batches import Batch, Objects
from stillhouse.tasks.labelled import labelled_part
from stillhouse.tasks.meters.box_precision import check_labels
from stillhouse.tasks.meters.coco import CocoPrecision, coco_precision
from stillhouse.tasks.meters.detection_rows import Rows, count_classes
from stillhouse.tasks.meters.mask_coco import mask_precision
from stillhouse.tasks.meters.mask_rows import (
    MASK_COLUMNS,
    MaskRows,
    OrderedMasks,
    collect_masks,
    concatenate_masks,
    from_mask_columns,
    order_masks,
    to_mask_columns,
)
from stillhouse.tasks.meters.precision_curve import Curve
from stillhouse.types import Trace

Segment = Callable[[Trace, Batch[Objects]], Iterable[Objects]]


class MaskPrecision:
    """Average precision of masks by the protocol of COCO.

    `segment` gives the instances of each image of a batch in turn, with scores and with masks at
    the size of the batch's images; they are encoded one image after another. Masks are compared at
    that size without the padding, boxes in pixels of the images as read. With `boundary`, masks are
    also compared by their boundaries. All detections and objects are kept as run-length codes, on
    the CPU. Batches without a target are left out, and an image that was evaluated several times
    counts once. Without a number of `classes`, they end with the highest class index.
    """

    rows: ClassVar[frozenset[str]] = frozenset(MASK_COLUMNS)

    def __init__(self, classes: int | None, segment: Segment, boundary: bool = False) -> None:
        self.classes = classes or 0
        self.segment = segment
        self.boundary = boundary
        self.parts: list[MaskRows] = []
        self.ordered: OrderedMasks | None = None
        self.precision: CocoPrecision | None = None

    @torch.no_grad()
    def update(self, trace: Trace, batch: Batch[Objects]) -> None:
        """Add the instances and objects of one batch; images without labels are left out."""
        if batch.target is None:
            return
        trace, batch = labelled_part(trace, batch)
        rows = collect_masks(self.segment(trace, batch), batch)
        check_labels(rows.boxes.detections.label, self.classes, "a detection")
        check_labels(rows.boxes.objects.label, self.classes, "an object")
        self.parts.append(rows)
        self.ordered, self.precision = None, None

    def state(self) -> Mapping[str, Tensor]:
        """The rows so far; of length 0 without a batch."""
        return to_mask_columns(concatenate_masks(self.parts))

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Replace the rows."""
        self.parts = [from_mask_columns(state)]
        self.ordered, self.precision = None, None

    def masks(self) -> OrderedMasks:
        """All rows in order of keys, each image once, with the codes of masks."""
        if self.ordered is None:
            self.ordered = order_masks(concatenate_masks(self.parts))
        return self.ordered

    def collected(self) -> Rows:
        """The same rows without masks, as those of `BoxPrecision`."""
        return self.masks().boxes

    def result(self) -> CocoPrecision:
        """The result for masks; it is computed once."""
        if self.precision is None:
            self.precision = mask_precision(self.masks(), self._count())
        return self.precision

    def summary(self) -> Mapping[str, float]:
        """The scores by name in percent, and the numbers of `objects` to find and `detections`.

        Those of masks have the names of `BoxPrecision`. `box_ap` is the AP of the boxes that
        `segment` gives, `boundary_ap` that of masks whose boundaries are compared.
        """
        rows, more = self.collected(), {}
        more["box_ap"] = coco_precision(rows, self._count()).scores()["ap"]
        if self.boundary:
            more["boundary_ap"] = mask_precision(self.masks(), self._count(), True).scores()["ap"]
        return {
            **self.result().scores(),
            **more,
            "objects": float((~rows.objects.ignored).sum()),
            "detections": float(len(rows.detections.key)),
        }

    def per_class(self) -> dict[int, float]:
        """The average precision in percent of each class that has objects, by class index."""
        values = (100 * self.result().per_class).tolist()
        return {label: value for label, value in enumerate(values) if value == value}

    def curves(self) -> dict[int, Curve]:
        """The precision-recall curve at IoU .5 of each class that has objects, by class index."""
        return {label: self.result().curve(label) for label in self.per_class()}

    def _count(self) -> int:
        return self.classes or count_classes(self.collected())
