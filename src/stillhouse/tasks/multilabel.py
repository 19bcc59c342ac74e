"""Multi-label image classification: any number of classes an image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from torch import Tensor

from stillhouse.batches import Labelled
from stillhouse.functional.losses import BCE, LabelLoss
from stillhouse.tasks.images import ImageTask, logits, multi_hot
from stillhouse.tasks.meters.average_precision import MeanPrecision
from stillhouse.types import Term, Trace

Reduction = Literal["batch", "sum", "mean"]


@dataclass(frozen=True)
class Multilabel(ImageTask):
    """Several classes an image, or none; the site is `class`, its target multi-hot.

    The loss of the labels is summed over classes and averaged over images (`batch`), summed over
    everything that all ranks have (`sum`), or averaged over both (`mean`). L2D (Yang P. et al.,
    2023) states the first and its public code has the second, beside terms that are averaged over
    images: there the labels count as many times more as a batch has images.
    """

    classes: int | None = None  # only for the width of what a rank without images has to tell
    loss: LabelLoss = field(default_factory=BCE)
    reduction: Reduction = "batch"
    share: float = 0.0  # of the images that have a class, on average over classes, in percent
    headline: str = field(default="map", init=False)

    def __post_init__(self) -> None:
        if self.reduction not in get_args(Reduction):
            raise ValueError(f"reduction must be batch, sum or mean, not {self.reduction!r}")
        if not 0 <= self.share <= 100:
            raise ValueError(f"share must lie between 0 and 100 percent, not {self.share}")

    @property
    def chance(self) -> float:
        """Mean average precision of a guess, in percent: how frequent a class is."""
        return self.share

    def label_term(self, student: Trace, label: Tensor) -> Term:
        """The loss of one view: class indices (N,) or shares of each class (N, C) -> Term."""
        scores = logits(student)
        losses = self.loss(scores, multi_hot(label, scores))
        total = losses.sum()
        if self.reduction == "sum":
            return Term(total, total.new_tensor(1.0), shared=True)
        count = len(losses) if self.reduction == "batch" else losses.numel()
        return Term(total, total.new_tensor(float(count)))

    def target(self, student: Trace, batch: Labelled) -> Tensor:
        """The share of each class in each image: (N, C)."""
        return multi_hot(batch.label, logits(student))

    def meter(self) -> MeanPrecision:
        """Mean average precision, F1 by three protocols, and loss."""
        return MeanPrecision(self.classes)
