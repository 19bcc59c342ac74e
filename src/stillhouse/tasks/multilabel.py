"""Multi-label image classification: any number of classes per image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

from torch import Tensor

from stillhouse.batches import Batch
from stillhouse.functional.losses import BCE, LabelLoss
from stillhouse.spec import BY_KIND, spec
from stillhouse.tasks.base import Facts
from stillhouse.tasks.images import ImageTask, logits, multi_hot
from stillhouse.tasks.meters.average_precision import MeanAveragePrecision
from stillhouse.types import Term, Trace

Reduction = Literal["batch", "sum", "mean"]
ABSENT = -1.0  # the share of each class in an image without labels, as opposed to one with no class


@spec
class MultilabelSpec:
    """Any number of classes per image, each present or not.

    The label loss is summed over classes and averaged over images ("batch"), summed over both
    ("sum"), or averaged over both ("mean").
    """

    loss: Annotated[LabelLoss, BY_KIND] = BCE()
    reduction: Reduction = "batch"
    name: Literal["multilabel"] = "multilabel"

    def build(self, facts: Facts) -> Multilabel:
        """The task for the classes of the data, whose frequencies give the mAP of chance."""
        classes, target = len(facts.classes), facts.validation
        several = isinstance(target, Tensor) and target.ndim == 2
        share = float(target.mean()) if several and isinstance(target, Tensor) else 1 / classes
        return Multilabel(classes, self.loss, self.reduction, 100 * share)


@dataclass(frozen=True)
class Multilabel(ImageTask):
    """Several classes per image, or none; the site is `class`, its target multi-hot.

    The label loss is summed over classes and averaged over images (`batch`), summed over
    everything that all ranks have (`sum`), or averaged over both (`mean`). L2D (Yang P. et al.,
    2023) states the first and its public code has the second, beside terms that are averaged over
    images: there the labels count as many times more as a batch has images.
    """

    classes: int | None = None  # the number of columns that a rank without images reports
    loss: LabelLoss = field(default_factory=BCE)
    reduction: Reduction = "batch"
    share: float = 0.0  # mean frequency of a class over images, in percent
    headline: str = field(default="map", init=False)
    examine: tuple[str, ...] = field(
        default=(
            "disagreement",
            "decisions",
            "average_precision",
            "correlation",
            "relations",
            "retrieval",
            "activation",
        ),
        init=False,
        repr=False,
    )

    def __post_init__(self) -> None:
        if self.reduction not in get_args(Reduction):
            raise ValueError(f"reduction must be batch, sum or mean, not {self.reduction!r}")
        if not 0 <= self.share <= 100:
            raise ValueError(f"share must lie between 0 and 100 percent, not {self.share}")

    @property
    def chance(self) -> float:
        """Mean average precision of random predictions, in percent: how frequent a class is."""
        return self.share

    def label_term(self, student: Trace, label: Tensor) -> Term:
        """The loss of one view: class indices (N,) or shares of each class (N, C) -> Term."""
        scores = logits(student)
        share = multi_hot(label, scores)
        known = (share > ABSENT).all(1)
        losses = self.loss(scores, share)
        total = (losses * known[:, None]).sum()
        if self.reduction == "sum":
            return Term(total, total.new_tensor(1.0), shared=True)
        count = known.sum().to(total.dtype)
        return Term(total, count if self.reduction == "batch" else count * losses.shape[1])

    def target(self, student: Trace, batch: Batch[Tensor]) -> Tensor | None:
        """The share of each class in each image: (N, C)."""
        return None if batch.target is None else multi_hot(batch.target, logits(student))

    def meter(self) -> MeanAveragePrecision:
        """Mean average precision, F1 by three protocols, and loss."""
        return MeanAveragePrecision(self.classes)
