"""Single-label image classification."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from stillhouse.batches import ABSENT
from stillhouse.errors import UserError
from stillhouse.functional.dtype import upcast
from stillhouse.spec import spec
from stillhouse.tasks.base import Facts
from stillhouse.tasks.images import ImageTask, logits, refuse_objects
from stillhouse.tasks.meters.accuracy import Accuracy
from stillhouse.types import Term, Trace

VECTORS = 2  # axes of shares of classes


@spec
class ClassificationSpec:
    """One class per image."""

    label_smoothing: float = 0.0
    name: Literal["classification"] = "classification"
    storable: ClassVar[bool] = True  # one row of logits per image

    def build(self, facts: Facts) -> Classification:
        """The task for the classes of the data; raises UserError for other targets."""
        target = facts.validation
        refuse_objects(facts, "classification")
        if target is not None and not (isinstance(target, Tensor) and target.ndim == 1):
            raise UserError(
                f"the images of {facts.data} have several labels each, but task classification "
                "needs one; set task=multilabel"
            )
        if len(facts.classes) == 1:
            raise UserError(
                f"{facts.data} has one class, {facts.classes[0]!r}, so that every prediction is "
                "right; classification needs images of at least two"
            )
        return Classification(len(facts.classes), self.label_smoothing)


@dataclass(frozen=True)
class Classification(ImageTask):
    """One class per image; the site is `class`, its target the class index."""

    classes: int | None = None  # for the accuracy of chance
    label_smoothing: float = 0.0
    headline: str = field(default="top1", init=False)
    examine: tuple[str, ...] = field(
        default=(
            "agreement",
            "consistency",
            "correlation",
            "relations",
            "logits",
            "calibration",
            "classes",
            "confusion",
            "embedding",
            "activation",
        ),
        init=False,
        repr=False,
    )

    @property
    def chance(self) -> float:
        """Top-1 accuracy of random predictions, in percent; 0 if the classes are unknown."""
        return 100 / self.classes if self.classes else 0.0

    def absent(self, scores: Tensor) -> Tensor:
        """The class index of images without labels: (N, C) -> (N,)."""
        return torch.full(scores.shape[:1], ABSENT, device=scores.device)

    def label_term(self, student: Trace, label: Tensor) -> Term:
        """Cross-entropy of one view: class indices (N,) or shares of each class (N, C) -> Term."""
        scores = upcast(logits(student))
        check_labels(label, scores)
        if label.ndim == 2:
            loss = F.cross_entropy(
                scores,
                label.to(scores.dtype),
                label_smoothing=self.label_smoothing,
                reduction="sum",
            )
            return Term(loss, loss.new_tensor(float(len(label))))
        loss = F.cross_entropy(
            scores,
            label,
            ignore_index=ABSENT,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
        return Term(loss, (label != ABSENT).sum().to(loss.dtype))

    def meter(self) -> Accuracy:
        """A meter of top-1 and top-5 accuracy, loss and calibration error."""
        return Accuracy()


def check_labels(label: Tensor, scores: Tensor) -> None:
    """Raise UserError for labels that do not fit scores (N, C).

    Class indices on a device are not compared with C, because that would synchronise.
    """
    classes = scores.shape[1]
    fits = label.shape == (scores.shape if label.ndim == VECTORS else scores.shape[:1])
    if not fits or (label.ndim < VECTORS and label.is_floating_point()):
        raise UserError(
            f"labels of dtype {label.dtype} and shape {tuple(label.shape)} do not fit scores of "
            f"shape {tuple(scores.shape)}; give class indices (N,), or the share of each class (N, "
            "C)"
        )
    on_device = label.device.type != "cpu" or torch.compiler.is_compiling()
    if label.ndim == VECTORS or on_device or not len(label):
        return
    low, high = int(label.min()), int(label.max())
    if low < ABSENT or high >= classes:
        raise UserError(
            f"labels go from {low} to {high}, but the student has {classes} classes; number them "
            f"from 0 to {classes - 1}, and use {ABSENT} for images without a label"
        )
