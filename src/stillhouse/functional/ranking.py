"""Metrics of multi-label scores: average precision, and F1 of several decision rules."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

ENTRIES = 2**20  # scores sorted at a time, which bounds the memory


@torch.no_grad()
def average_precision(scores: Tensor, labels: Tensor) -> Tensor:
    """Area under the precision-recall curve of each class, uninterpolated, in double precision.

    (N, C), (N, C) of which above 0 is positive -> (C,), NaN for a class without positives. Equal
    scores are one threshold, as in scikit-learn; NaN is the lowest score.
    """
    width = max(1, ENTRIES // max(1, len(scores)))
    parts = zip(scores.split(width, 1), labels.split(width, 1), strict=True)
    return torch.cat([_areas(some, targets > 0) for some, targets in parts])


def _areas(scores: Tensor, positive: Tensor) -> Tensor:
    ranked, order = sortable(scores).sort(0, descending=True)
    hits = positive.gather(0, order).cumsum(0, dtype=torch.double)
    last = torch.ones_like(positive)  # entry of each distinct score, where the curve has a point
    last[:-1] = ranked[1:] != ranked[:-1]
    before = F.pad((hits * last).cummax(0).values, (0, 0, 1, 0))[:-1]
    ranks = torch.arange(1, len(scores) + 1, device=scores.device)[:, None]
    areas = ((hits - before) * hits / ranks * last).sum(0)
    return areas / positive.sum(0)


def sortable(scores: Tensor) -> Tensor:
    """Scores with NaN as the lowest: (...) -> (...)."""
    return scores.nan_to_num(-math.inf, math.inf, -math.inf)


def above_half(logits: Tensor) -> Tensor:
    """Classes whose probability is above 0.5: (N, C) -> (N, C) bool."""
    return logits > 0


def top_k(scores: Tensor, k: int) -> Tensor:
    """The k best classes of each image, the first of equal ones: (N, C) -> (N, C) bool."""
    best = sortable(scores).argsort(stable=True, dim=1, descending=True)[:, :k]
    return torch.zeros_like(scores, dtype=torch.bool).scatter(1, best, True)


def oracle_top_k(scores: Tensor, labels: Tensor) -> Tensor:
    """The best classes of each image, as many as it has labels, which are unknown in use.

    (N, C), (N, C) -> (N, C) bool. A class must be above the best one that is left out, so that a
    tie at the border picks fewer (as the public code of L2D, Yang P. et al., 2023, which fails
    where an image has every class; here all are picked).
    """
    scores, count = sortable(scores), (labels > 0).sum(1, keepdim=True)
    if not scores.shape[1]:
        return torch.zeros_like(scores, dtype=torch.bool)
    ranked = scores.sort(1, descending=True).values
    border = ranked.gather(1, count.clamp(max=scores.shape[1] - 1))
    return (scores > border) | (count == scores.shape[1])


class DecisionCounts(NamedTuple):
    """Counts of the decisions for each class."""

    true_positives: Tensor  # (C,)
    false_positives: Tensor  # (C,)
    false_negatives: Tensor  # (C,)


def count_decisions(predicted: Tensor, labels: Tensor) -> DecisionCounts:
    """Count over images: (N, C) bool, (N, C) -> 3 x (C,)."""
    positive = labels > 0
    return DecisionCounts(
        (predicted & positive).sum(0),
        (predicted & ~positive).sum(0),
        (~predicted & positive).sum(0),
    )


def micro_f1(counts: DecisionCounts) -> Tensor:
    """F1 of all decisions, the OF1 of the literature: -> ()."""
    return _f1(DecisionCounts(*(count.sum() for count in counts)))


def macro_f1(counts: DecisionCounts) -> Tensor:
    """Mean F1 over classes: -> ()."""
    return _class_mean(_f1(counts))


def harmonic_f1(counts: DecisionCounts) -> Tensor:
    """F1 of mean precision and mean recall, the CF1 of the literature: -> ()."""
    right, wrong, missed = counts
    precision = _class_mean(_quotient(right, right + wrong))
    recall = _class_mean(_quotient(right, right + missed))
    return _quotient(2 * precision * recall, precision + recall)


def _f1(counts: DecisionCounts) -> Tensor:
    right, wrong, missed = counts
    return _quotient(2 * right, 2 * right + wrong + missed)


def _class_mean(values: Tensor) -> Tensor:
    return values.sum() / max(1, len(values))


def _quotient(part: Tensor, total: Tensor) -> Tensor:
    """The quotient, 0 where the total is 0."""
    return part.double() / total.where(total > 0, 1)
