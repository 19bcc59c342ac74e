"""Top-1 and top-5 accuracy, cross-entropy and calibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from stillhouse.batches import ABSENT, Batch
from stillhouse.models.scores import class_scores
from stillhouse.types import Trace

CALIBRATION_BINS = 15  # of the calibration error, as in Guo et al., 2017


class Accuracy:
    """Top-1 and top-5 in percent, cross-entropy, and expected calibration error in percent."""

    rows: ClassVar[frozenset[str]] = frozenset()

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, trace: Trace, batch: Batch[Tensor]) -> None:
        """Add one batch: (N, C) logits, (N,) labels; images without a label are left out."""
        if batch.target is None:
            return
        scores = class_scores(trace.out).double()
        known = (batch.target != ABSENT).double()
        order = scores.topk(min(5, scores.shape[1])).indices == batch.target[:, None]
        confidence, prediction = scores.softmax(1).max(1)
        correct = (prediction == batch.target).double()
        bins = (confidence * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
        empty = correct.new_zeros(CALIBRATION_BINS)
        self.add(
            images=known.sum(),
            top1=order[:, 0].double().sum(),
            top5=order.double().sum(),
            loss=F.cross_entropy(scores, batch.target, ignore_index=ABSENT, reduction="sum"),
            bin_hits=empty.index_add(0, bins, correct),
            bin_confidence=empty.index_add(0, bins, confidence * known),
        )

    def add(self, **sums: Tensor) -> None:
        """Add to the sums by name."""
        for name, value in sums.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def state(self) -> Mapping[str, Tensor]:
        """The sums so far; zeros without a batch."""
        if self.sums:
            return self.sums
        zero = torch.zeros((), dtype=torch.double)
        bins = torch.zeros(CALIBRATION_BINS, dtype=torch.double)
        scalars = {name: zero for name in ("images", "top1", "top5", "loss")}
        return scalars | {"bin_hits": bins, "bin_confidence": bins}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Replace the sums."""
        self.sums = dict(state)

    def summary(self) -> Mapping[str, float]:
        """The scores `top1`, `top5` and `calibration_error` in percent, and the mean `loss`."""
        s = self.state()
        images = s["images"].clamp(min=1)
        gap = (s["bin_hits"] - s["bin_confidence"]).abs().sum()
        return {
            "top1": float(100 * s["top1"] / images),
            "top5": float(100 * s["top5"] / images),
            "loss": float(s["loss"] / images),
            "calibration_error": float(100 * gap / images),
        }
