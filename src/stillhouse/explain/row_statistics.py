"""Rows of two matrices compared in double precision: (N, E), (N, E) -> (N,).

A row that is constant has no correlation with anything: NaN, which `average` skips and counts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Rows = NDArray[np.float64]


class Mean(NamedTuple):
    """A mean over the rows that have a value, and how many have none."""

    value: float | None
    skipped: int


def probabilities(logits: Tensor) -> Rows:
    """Softmax in double precision: (N, C) -> (N, C)."""
    found: Rows = logits.double().softmax(1).numpy()
    return found


def sigmoids(logits: Tensor) -> Rows:
    """The logistic function in double precision: (N, C) -> (N, C)."""
    found: Rows = logits.double().sigmoid().numpy()
    return found


def average(values: Rows) -> Mean:
    """The mean of what is a number."""
    good = values[np.isfinite(values)]
    return Mean(float(good.mean()) if len(good) else None, len(values) - len(good))


def unit(x: Rows) -> Rows:
    """Rows centred and of length 1, those that are constant NaN: (N, E) -> (N, E)."""
    centred = x - x.mean(1, keepdims=True)
    # Tiny probabilities must not vanish when they are squared.
    largest = np.abs(centred).max(1, keepdims=True)
    flat = (x.max(1, keepdims=True) == x.min(1, keepdims=True)) | (largest == 0)
    scaled = centred / np.where(flat, np.nan, largest)
    found: Rows = scaled / np.sqrt((scaled**2).sum(1, keepdims=True))
    return found


def pearson(x: Rows, y: Rows) -> Rows:
    """Pearson's correlation of each pair of rows."""
    found: Rows = (unit(x) * unit(y)).sum(1)
    return found


def ranks(x: Rows) -> Rows:
    """The rank of each entry in its row from 1 for the least, equal ones sharing the mean."""
    from scipy.stats import rankdata

    found: Rows = rankdata(x, axis=1)
    return found


def spearman(x: Rows, y: Rows) -> Rows:
    """Spearman's correlation of each pair of rows, with average ranks."""
    return pearson(ranks(x), ranks(y))


def kendall(x: Rows, y: Rows) -> Rows:
    """Kendall's tau-b of each pair of rows."""
    from scipy.stats import kendalltau

    if x.shape[1] < 2:
        return np.full(len(x), np.nan)
    # Only the p-value differs, which nobody asks for: one is quick, the other knows two entries.
    method = "asymptotic" if x.shape[1] > 2 else "exact"
    pairs = zip(x, y, strict=True)
    return np.array([kendalltau(a, b, method=method).statistic for a, b in pairs], float)


def evenly(count: int, limit: int) -> NDArray[np.int64]:
    """At most `limit` of the indices below `count`, evenly spaced."""
    return np.linspace(0, max(0, count - 1), min(count, limit)).round().astype(np.int64)
