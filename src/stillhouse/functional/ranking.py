"""How well scores rank and pick the classes of each image."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

ENTRIES = 2**20  # scores sorted at a time, which bounds the memory whatever the number of classes


@torch.no_grad()
def average_precision(scores: Tensor, labels: Tensor) -> Tensor:
    """Area under the precision-recall curve of each class, uninterpolated, in double precision.

    (N, C), (N, C) of which above 0 is positive -> (C,), NaN for a class without positives. Equal
    scores are one threshold, as in scikit-learn; no number is the lowest score of all.
    """
    width = max(1, ENTRIES // max(1, len(scores)))
    parts = zip(scores.split(width, 1), labels.split(width, 1), strict=True)
    return torch.cat([_areas(some, theirs > 0) for some, theirs in parts])


def _areas(scores: Tensor, positive: Tensor) -> Tensor:
    ranked, order = comparable(scores).sort(0, descending=True)
    hits = positive.gather(0, order).cumsum(0, dtype=torch.double)
    last = torch.ones_like(positive)  # of the entries of one score, the one where the curve bends
    last[:-1] = ranked[1:] != ranked[:-1]
    before = F.pad((hits * last).cummax(0).values, (0, 0, 1, 0))[:-1]
    places = torch.arange(1, len(scores) + 1, device=scores.device)[:, None]
    areas = ((hits - before) * hits / places * last).sum(0)
    return areas / positive.sum(0)


def comparable(scores: Tensor) -> Tensor:
    """Scores that can be sorted, no number being the lowest: (...) -> (...)."""
    return scores.nan_to_num(-math.inf, math.inf, -math.inf)


def above_half(logits: Tensor) -> Tensor:
    """Classes whose probability is above a half: (N, C) -> (N, C) bool."""
    return logits > 0


def top_k(scores: Tensor, k: int) -> Tensor:
    """The k best classes of each image; of equal ones the first: (N, C) -> (N, C) bool."""
    best = comparable(scores).argsort(stable=True, dim=1, descending=True)[:, :k]
    return torch.zeros_like(scores, dtype=torch.bool).scatter(1, best, True)


def oracle_top_k(scores: Tensor, labels: Tensor) -> Tensor:
    """As many classes of each image as it has labels, which a network in use does not know.

    (N, C), (N, C) -> (N, C) bool. Those above the best that must stay out: a tie at the border
    drops all of it, so that fewer are picked (the public code of L2D, Yang P. et al., 2023, which
    fails where an image has every class; here all are picked).
    """
    scores, count = comparable(scores), (labels > 0).sum(1, keepdim=True)
    if not scores.shape[1]:
        return torch.zeros_like(scores, dtype=torch.bool)
    ranked = scores.sort(1, descending=True).values
    border = ranked.gather(1, count.clamp(max=scores.shape[1] - 1))
    return (scores > border) | (count == scores.shape[1])


class Counts(NamedTuple):
    """How often each class was picked rightly, picked wrongly, and missed."""

    true_positives: Tensor  # (C,)
    false_positives: Tensor  # (C,)
    false_negatives: Tensor  # (C,)


def counted(predicted: Tensor, labels: Tensor) -> Counts:
    """Count over images: (N, C) bool, (N, C) -> three times (C,)."""
    positive = labels > 0
    return Counts(
        (predicted & positive).sum(0),
        (predicted & ~positive).sum(0),
        (~predicted & positive).sum(0),
    )


def micro_f1(counts: Counts) -> Tensor:
    """F1 of all decisions together, the OF1 of the literature: -> ()."""
    return _f1(Counts(*(count.sum() for count in counts)))


def macro_f1(counts: Counts) -> Tensor:
    """Mean of the F1 of each class: -> ()."""
    return _class_mean(_f1(counts))


def harmonic_f1(counts: Counts) -> Tensor:
    """F1 of mean precision and mean recall, the CF1 of the literature: -> ()."""
    right, wrong, missed = counts
    precision = _class_mean(_share(right, right + wrong))
    recall = _class_mean(_share(right, right + missed))
    return _share(2 * precision * recall, precision + recall)


def _f1(counts: Counts) -> Tensor:
    right, wrong, missed = counts
    return _share(2 * right, 2 * right + wrong + missed)


def _class_mean(values: Tensor) -> Tensor:
    return values.sum() / max(1, len(values))


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """The quotient, 0 where there is nothing to divide by."""
    return part.double() / whole.where(whole > 0, 1)
