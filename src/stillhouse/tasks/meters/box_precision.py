"""The meter of detection: average precision of boxes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from stillhouse.batches import Batch, Objects
from stillhouse.errors import UserError
from stillhouse.tasks.labelled import labelled_part
from stillhouse.tasks.meters.coco import coco_precision
from stillhouse.tasks.meters.detection_errors import detection_errors
from stillhouse.tasks.meters.detection_rows import (
    NAMES,
    Rows,
    collect_rows,
    concatenate_rows,
    count_classes,
    from_columns,
    order_rows,
    to_columns,
)
from stillhouse.tasks.meters.precision_curve import Curve
from stillhouse.tasks.meters.voc import ELEVEN, voc_precision
from stillhouse.types import Trace

Detect = Callable[[Trace, Batch[Objects]], Objects]


class Precision(Protocol):
    """The result of one protocol."""

    @property
    def per_class(self) -> Tensor:
        """Average precision of each class in [0, 1], NaN without objects: -> (C,)."""
        ...

    def curve(self, label: int) -> Curve:
        """The precision-recall curve at IoU .5 of a class with objects."""
        ...

    def scores(self) -> Mapping[str, float]:
        """The scores by name, in percent; `ap` is one of them."""
        ...


PROTOCOLS: Mapping[str, Callable[[Rows, int], Precision]] = {
    "coco": coco_precision,
    "voc": voc_precision,
    "voc07": partial(voc_precision, recalls=ELEVEN),
}


class BoxPrecision:
    """Average precision by the protocol of COCO, or of Pascal VOC from 2010 or of 2007.

    `detect` converts a network's output to detections with scores, in pixels of the batch's images
    before padding. Boxes are compared in pixels of the images as they were read, where objects are
    small or large. All detections and objects are kept, on the CPU. Batches without a target are
    left out, and an image that was evaluated several times counts once. Without a number of
    `classes`, they end with the highest class index.
    """

    rows: ClassVar[frozenset[str]] = frozenset(NAMES)

    def __init__(
        self,
        classes: int | None,
        detect: Detect,
        protocol: Literal["coco", "voc", "voc07"] = "coco",
    ) -> None:
        self.classes = classes or 0
        self.detect = detect
        self.protocol = protocol
        self.parts: list[Rows] = []
        self.ordered: Rows | None = None
        self.precision: Precision | None = None

    @torch.no_grad()
    def update(self, trace: Trace, batch: Batch[Objects]) -> None:
        """Add the detections and objects of one batch; images without labels are left out."""
        if batch.target is None:
            return
        trace, batch = labelled_part(trace, batch)
        rows = collect_rows(self.detect(trace, batch), batch)
        check_labels(rows.detections.label, self.classes, "a detection")
        check_labels(rows.objects.label, self.classes, "an object")
        self.parts.append(rows)
        self.ordered, self.precision = None, None

    def state(self) -> Mapping[str, Tensor]:
        """The rows so far; of length 0 without a batch."""
        return to_columns(concatenate_rows(self.parts))

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Replace the rows."""
        self.parts = [from_columns(state)]
        self.ordered, self.precision = None, None

    def collected(self) -> Rows:
        """All rows in order of keys, each image once, as `detection_errors` takes them."""
        if self.ordered is None:
            self.ordered = order_rows(concatenate_rows(self.parts))
        return self.ordered

    def result(self) -> Precision:
        """The result of the protocol; it is computed once."""
        if self.precision is None:
            rows = self.collected()
            self.precision = PROTOCOLS[self.protocol](rows, self.classes or count_classes(rows))
        return self.precision

    def summary(self) -> Mapping[str, float]:
        """The scores by name in percent, and the numbers of `objects` to find and `detections`.

        Scores of COCO are `ap`, `ap50`, `ap75`, `ap_small`, `ap_medium`, `ap_large`, `ar1`, `ar10`
        and `ar100`; a size is left out if no object has it. VOC has `ap` at IoU .5 only.
        """
        rows = self.collected()
        return {
            **self.result().scores(),
            "objects": float((~rows.objects.ignored).sum()),
            "detections": float(len(rows.detections.key)),
        }

    def errors(self) -> Mapping[str, float]:
        """The points of AP50 that each kind of error costs, see `detection_errors`."""
        rows = self.collected()
        return detection_errors(rows, self.classes or count_classes(rows)).costs

    def per_class(self) -> dict[int, float]:
        """The average precision in percent of each class that has objects, by class index."""
        values = (100 * self.result().per_class).tolist()
        return {label: value for label, value in enumerate(values) if value == value}

    def curves(self) -> dict[int, Curve]:
        """The precision-recall curve at IoU .5 of each class that has objects, by class index."""
        return {label: self.result().curve(label) for label in self.per_class()}


def check_labels(labels: Tensor, classes: int, what: str) -> None:
    """Raise a UserError for a class index that does not exist; 0 `classes` are any number."""
    wrong = labels < 0
    if classes:
        wrong |= labels >= classes
    if wrong.any():
        last = f" to {classes - 1}" if classes else ""
        raise UserError(
            f"the class index of {what} is {int(labels[wrong][0])}; number classes from 0{last}"
        )
