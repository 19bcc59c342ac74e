"""Mean intersection over union, pixel accuracy and boundary IoU, from sums over all images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from stillhouse.batches import Batch, without_absent
from stillhouse.functional.boundary_region import boundary_region
from stillhouse.types import Trace

BOUNDARY = 0.02  # distance from the boundary that counts, of the diagonal of an image
Segment = Callable[[Trace, Batch[Tensor]], Tensor]  # -> the predicted classes (N, H, W)


class MeanIoU:
    """Scores of predicted masks, from the pixels of all images together, not image by image.

    Classes that occur neither in the labels nor in the predictions have no IoU. Pixels of class
    `ignored` do not count.
    """

    rows: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self, classes: int, segment: Segment, ignored: int = 255, boundary: bool = False
    ) -> None:
        self.classes, self.segment, self.ignored = classes, segment, ignored
        self.boundary = boundary
        self.sums: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, trace: Trace, batch: Batch[Tensor]) -> None:
        """Add one batch; images without labels are left out."""
        if batch.target is None:
            return
        truth, found = without_absent(batch.target).long(), self.segment(trace, batch)
        known = truth != self.ignored
        self.add("confusion", count_pixels(truth[known], found[known], self.classes))
        self.add("images", known.flatten(1).any(1).sum().double())
        if self.boundary:
            for image, (one, other, counted) in enumerate(zip(truth, found, known, strict=True)):
                size = None if batch.sizes is None else batch.sizes[image]
                self.add("boundary", self.boundaries(one, other, counted, size))

    def boundaries(
        self, truth: Tensor, found: Tensor, known: Tensor, size: Tensor | None
    ) -> Tensor:
        """Intersection and union of the boundary regions of each class: (H, W) -> (C, 2)."""
        height, width = truth.shape if size is None else size.tolist()
        distance = max(1, round(BOUNDARY * (height**2 + width**2) ** 0.5))
        sums = []
        for number in range(self.classes):
            masks = torch.stack([(truth == number) & known, (found == number) & known])
            one, other = boundary_region(masks, distance)
            sums.append(torch.stack([(one & other).sum(), (one | other).sum()]))
        return torch.stack(sums).double()

    def add(self, name: str, value: Tensor) -> None:
        """Add to a sum by name."""
        self.sums[name] = self.sums[name] + value if name in self.sums else value

    def state(self) -> Mapping[str, Tensor]:
        """The sums so far; zeros without a batch."""
        zero = torch.zeros((), dtype=torch.double)
        empty = {"confusion": zero.expand(self.classes, self.classes), "images": zero}
        if self.boundary:
            empty["boundary"] = zero.expand(self.classes, 2)
        return empty | self.sums

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Replace the sums."""
        self.sums = dict(state)

    def summary(self) -> Mapping[str, float]:
        """`miou`, `accuracy`, `mean_accuracy` in percent, and what they are means of.

        `mean_accuracy` is the mean over the classes of the labels of the share of their pixels that
        is found. `classes` is the number of classes with an IoU.
        """
        state = self.state()
        confusion = state["confusion"]
        right, truth = confusion.diagonal(), confusion.sum(1)
        scores = {
            "miou": mean_of(iou_of_classes(confusion)),
            "accuracy": float(100 * right.sum() / confusion.sum().clamp(min=1)),
            "mean_accuracy": mean_of(right / truth),
        }
        if self.boundary:
            shared, union = state["boundary"].unbind(1)
            scores["boundary_iou"] = mean_of(shared / union)
        counted = ~iou_of_classes(confusion).isnan()
        return scores | {"classes": float(counted.sum()), "images": float(state["images"])}


def count_pixels(truth: Tensor, found: Tensor, classes: int) -> Tensor:
    """The confusion matrix of pixels with a class: (P,), (P,) -> (C, C), labels in rows."""
    counts = torch.bincount(classes * truth + found, minlength=classes**2).double()
    return counts.view(classes, classes)


def iou_of_classes(confusion: Tensor) -> Tensor:
    """The IoU of each class, NaN for one that does not occur: (C, C) -> (C,).

    Rows of the confusion matrix are labels, columns predictions.
    """
    right = confusion.diagonal()
    return right / (confusion.sum(0) + confusion.sum(1) - right)


def mean_of(values: Tensor) -> float:
    """The mean in percent of the values that are numbers, 0 without one."""
    known = values[~values.isnan()]
    return float(100 * known.mean()) if len(known) else 0.0
