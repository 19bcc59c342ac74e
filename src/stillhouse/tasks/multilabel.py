"""Multi-label image classification: any number of classes per image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, get_args

import torch
from torch import Tensor

from stillhouse.batches import ABSENT, Batch
from stillhouse.errors import UserError
from stillhouse.functional.losses import BCE, LabelLoss
from stillhouse.spec import BY_KIND, spec
from stillhouse.tasks.base import Facts
from stillhouse.tasks.images import ImageTask, logits, multi_hot, refuse_objects
from stillhouse.tasks.meters.average_precision import MeanAveragePrecision
from stillhouse.types import Term, Trace

LabelReduction = Literal["batch", "sum", "mean"]


@spec
class MultilabelSpec:
    """Any number of classes per image, each present or not.

    The label loss is summed over classes and averaged over images ("batch"), summed over both
    ("sum"), or averaged over both ("mean").
    """

    loss: Annotated[LabelLoss, BY_KIND] = BCE()
    reduction: LabelReduction = "batch"
    name: Literal["multilabel"] = "multilabel"
    storable: ClassVar[bool] = True  # one row of logits per image

    def build(self, facts: Facts) -> Multilabel:
        """The task for the classes of the data; their mean frequency is the mAP of chance."""
        refuse_objects(facts, "multilabel")
        classes, target = len(facts.classes), facts.validation
        several = isinstance(target, Tensor) and target.ndim == 2
        share = float(target.mean()) if several and isinstance(target, Tensor) else 1 / classes
        return Multilabel(classes, self.loss, self.reduction, 100 * share)


@dataclass(frozen=True)
class Multilabel(ImageTask):
    """Several classes per image, or none; the site is `class`, its target multi-hot.

    The label loss is summed over classes and averaged over images (`batch`), summed over classes
    and the images of all ranks (`sum`), or averaged over both (`mean`). The paper of L2D (Yang P.
    et al., 2023) has `batch`; its code has `sum`, with other terms averaged over images, so that
    labels have the batch size as an extra weight.
    """

    classes: int | None = None  # for the scores of a rank without images
    loss: LabelLoss = field(default_factory=BCE)
    reduction: LabelReduction = "batch"
    share: float = 0.0  # mean frequency of classes over images, in percent
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
        if self.reduction not in get_args(LabelReduction):
            raise ValueError(f"reduction must be batch, sum or mean, got {self.reduction!r}")
        if not 0 <= self.share <= 100:
            raise ValueError(f"share must be from 0 to 100 percent, got {self.share}")

    @property
    def chance(self) -> float:
        """Mean average precision of random predictions, in percent: the mean class frequency."""
        return self.share

    def absent(self, scores: Tensor) -> Tensor:
        """The share of each class in images without labels: (N, C) -> (N, C)."""
        return torch.full_like(scores, ABSENT)

    def label_term(self, student: Trace, label: Tensor) -> Term:
        """The loss of one view: class indices (N,) or shares of each class (N, C) -> Term."""
        scores = logits(student)
        shares = multi_hot(label, scores)
        labelled = (shares > ABSENT).all(1)
        losses = self.loss(scores, shares)
        total = (losses * labelled[:, None]).sum()
        if self.reduction == "sum":
            return Term(total, total.new_tensor(1.0), shared=True)
        count = labelled.sum().to(total.dtype)
        return Term(total, count if self.reduction == "batch" else count * losses.shape[1])

    def target(self, student: Trace, batch: Batch[Tensor]) -> Tensor | None:
        """The share of each class in each image: (N, C)."""
        return None if batch.target is None else multi_hot(batch.target, logits(student))

    def collect_target(self, batch: Batch[Tensor]) -> Tensor:
        """The share of each class in each image, on the CPU: (N, classes)."""
        label = super().collect_target(batch)
        columns = label.shape[1] if label.ndim == 2 else self.classes
        if columns is None:
            raise UserError("the number of classes is unknown; pass Multilabel(classes=...)")
        return multi_hot(label, torch.zeros(len(label), columns))

    def meter(self) -> MeanAveragePrecision:
        """A meter of mean average precision, F1 by three protocols, and loss."""
        return MeanAveragePrecision(self.classes)
