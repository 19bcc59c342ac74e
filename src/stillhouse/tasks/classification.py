"""Single-label image classification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from stillhouse.batches import Labelled
from stillhouse.functional.precision import upcast
from stillhouse.tasks.images import ImageTask, logits
from stillhouse.types import Term, Trace

BINS = 15  # of the calibration error, as in Guo et al., 2017


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


class Accuracy:
    """Top-1 and top-5 in percent, cross-entropy, and expected calibration error in percent."""

    rows: ClassVar[frozenset[str]] = frozenset()

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, trace: Trace, batch: Labelled) -> None:
        """Count one batch: (N, C) logits, (N,) labels."""
        scores = logits(trace).double()
        order = scores.topk(min(5, scores.shape[1])).indices == batch.label[:, None]
        confidence, guess = scores.softmax(1).max(1)
        hit = (guess == batch.label).double()
        bins = (confidence * BINS).long().clamp(max=BINS - 1)
        empty = hit.new_zeros(BINS)
        self.add(
            images=hit.new_tensor(float(len(hit))),
            top1=order[:, 0].double().sum(),
            top5=order.double().sum(),
            loss=F.cross_entropy(scores, batch.label, reduction="sum"),
            bin_hits=empty.index_add(0, bins, hit),
            bin_confidence=empty.index_add(0, bins, confidence),
        )

    def add(self, **sums: Tensor) -> None:
        """Add to the sums so far."""
        for name, value in sums.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def state(self) -> Mapping[str, Tensor]:
        """The sums so far; zeros for a rank that saw nothing."""
        if self.sums:
            return self.sums
        one, bins = torch.zeros((), dtype=torch.double), torch.zeros(BINS, dtype=torch.double)
        scalars = {name: one for name in ("images", "top1", "top5", "loss")}
        return scalars | {"bin_hits": bins, "bin_confidence": bins}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over sums."""
        self.sums = dict(state)

    def summary(self) -> Mapping[str, float]:
        """The numbers that people read."""
        s = self.state()
        images = s["images"].clamp(min=1)
        gap = (s["bin_hits"] - s["bin_confidence"]).abs().sum()
        return {
            "top1": float(100 * s["top1"] / images),
            "top5": float(100 * s["top5"] / images),
            "loss": float(s["loss"] / images),
            "calibration_error": float(100 * gap / images),
        }
