"""Mean average precision and F1 of multi-label classification."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from stillhouse.batches import Batch
from stillhouse.functional.ranking import (
    above_half,
    average_precision,
    count_decisions,
    harmonic_f1,
    macro_f1,
    micro_f1,
    oracle_top_k,
    top_k,
)
from stillhouse.tasks.images import logits, multi_hot
from stillhouse.types import Trace


class MeanAveragePrecision:
    """Mean average precision, F1 by three protocols, all in percent, and binary cross-entropy.

    A ranking needs all scores, so the scores and labels of all images are kept, on the CPU. The
    protocols predict classes with a probability above 0.5, the top k for an image of k classes
    (`_oracle`, the protocol of L2D, whose CF1 is `macro_f1_oracle`), or the top 3 (`_top3`). `of1`
    is micro F1, `cf1` the harmonic mean of mean precision and mean recall. Classes without
    positives are left out of the mean average precision; in class means of F1 they count as 0.
    """

    rows: ClassVar[frozenset[str]] = frozenset({"scores", "labels"})

    def __init__(self, classes: int | None = None) -> None:
        self.classes = classes or 0
        self.scores: list[Tensor] = []
        self.labels: list[Tensor] = []

    @torch.no_grad()
    def update(self, trace: Trace, batch: Batch[Tensor]) -> None:
        """Add one batch: (N, C) logits, (N, C) shares, present above 0, or (N,) class index.

        Images without labels are left out.
        """
        if batch.target is None:
            return
        scores = logits(trace)
        share = multi_hot(batch.target, scores)
        known = (share >= 0).all(1).cpu()
        self.scores.append(scores.detach().to("cpu", torch.float, copy=True)[known])
        self.labels.append((share > 0).to("cpu", torch.uint8)[known])

    def state(self) -> Mapping[str, Tensor]:
        """The rows so far; of length 0 without a batch."""
        if self.scores:
            return {"scores": torch.cat(self.scores), "labels": torch.cat(self.labels)}
        empty = torch.zeros(0, self.classes)
        return {"scores": empty, "labels": empty.to(torch.uint8)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Replace the rows."""
        self.scores, self.labels = [], []
        if len(state["scores"]):  # an empty state may have another number of classes
            self.scores.append(state["scores"].cpu())
            self.labels.append(state["labels"].cpu())

    @torch.no_grad()
    def summary(self) -> Mapping[str, float]:
        """The scores by name, in percent except for `loss` and `classes_without_positives`."""
        state = self.state()
        scores, present = state["scores"], state["labels"] > 0
        precisions = average_precision(scores, present)
        defined = precisions[~precisions.isnan()]
        margins = torch.where(present, scores, -scores).double()
        return {
            "map": float(100 * defined.sum() / max(1, len(defined))),
            **f1_scores("", above_half(scores), present),
            **f1_scores("_oracle", oracle_top_k(scores, present), present),
            **f1_scores("_top3", top_k(scores, 3), present),
            "loss": float(-F.logsigmoid(margins).sum() / max(1, len(scores))),
            "classes_without_positives": float(len(precisions) - len(defined)),
        }


def f1_scores(protocol: str, predicted: Tensor, present: Tensor) -> dict[str, float]:
    """The F1 scores in percent of predicted classes: (N, C) bool, (N, C) bool."""
    counts = count_decisions(predicted, present)
    return {
        f"of1{protocol}": float(100 * micro_f1(counts)),
        f"cf1{protocol}": float(100 * harmonic_f1(counts)),
        f"macro_f1{protocol}": float(100 * macro_f1(counts)),
    }
