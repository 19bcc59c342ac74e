"""Single-label image classification."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor

from stillhouse.functional.dtype import upcast
from stillhouse.tasks.images import ImageTask, logits
from stillhouse.tasks.meters.accuracy import Accuracy
from stillhouse.types import Term, Trace


@dataclass(frozen=True)
class Classification(ImageTask):
    """One class an image; the site is `class`."""

    classes: int | None = None  # only to know what chance is
    label_smoothing: float = 0.0
    headline: str = field(default="top1", init=False)

    @property
    def chance(self) -> float:
        """Top-1 of a guess, in percent."""
        return 100 / self.classes if self.classes else 0.0

    def label_term(self, student: Trace, label: Tensor) -> Term:
        """Cross-entropy of one view: class indices (N,) or shares of each class (N, C) -> Term."""
        scores = upcast(logits(student))
        loss = F.cross_entropy(
            scores,
            label if label.ndim == 1 else label.to(scores.dtype),
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
        return Term(loss, loss.new_tensor(float(len(label))))

    def meter(self) -> Accuracy:
        """Top-1, top-5, loss and calibration."""
        return Accuracy()
