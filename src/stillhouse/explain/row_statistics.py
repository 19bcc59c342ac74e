"""Statistics of the rows of matrices, in double precision: (N, E), (N, E) -> (N,).

The correlation of a constant row is NaN, which `finite_mean` skips and counts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Rows = NDArray[np.float64]


class FiniteMean(NamedTuple):
    """The mean of the finite values, None without any, and the number of other values."""

    value: float | None
    skipped: int


def softmax_rows(logits: Tensor) -> Rows:
    """Softmax in double precision: (N, C) -> (N, C)."""
    probabilities: Rows = logits.double().softmax(1).numpy()
    return probabilities


def sigmoid_rows(logits: Tensor) -> Rows:
    """Sigmoid in double precision: (N, C) -> (N, C)."""
    probabilities: Rows = logits.double().sigmoid().numpy()
    return probabilities


def finite_mean(values: Rows) -> FiniteMean:
    """The mean of the finite values."""
    finite = values[np.isfinite(values)]
    return FiniteMean(float(finite.mean()) if len(finite) else None, len(values) - len(finite))


def unit_rows(x: Rows) -> Rows:
    """Each row centred and divided by its norm, NaN for a constant row: (N, E) -> (N, E)."""
    centred = x - x.mean(1, keepdims=True)
    # The squares of tiny probabilities would underflow.
    largest = np.abs(centred).max(1, keepdims=True)
    constant = (x.max(1, keepdims=True) == x.min(1, keepdims=True)) | (largest == 0)
    scaled = centred / np.where(constant, np.nan, largest)
    normalised: Rows = scaled / np.sqrt((scaled**2).sum(1, keepdims=True))
    return normalised


def row_pearson(x: Rows, y: Rows) -> Rows:
    """Pearson's correlation of each pair of rows."""
    correlation: Rows = (unit_rows(x) * unit_rows(y)).sum(1)
    return correlation


def row_ranks(x: Rows) -> Rows:
    """The rank of each entry in its row, from 1 for the smallest; ties have their mean rank."""
    from scipy.stats import rankdata

    ranks: Rows = rankdata(x, axis=1)
    return ranks


def row_spearman(x: Rows, y: Rows) -> Rows:
    """Spearman's correlation of each pair of rows; ties have their mean rank."""
    return row_pearson(row_ranks(x), row_ranks(y))


def row_kendall(x: Rows, y: Rows) -> Rows:
    """Kendall's tau-b of each pair of rows."""
    from scipy.stats import kendalltau

    if x.shape[1] < 2:
        return np.full(len(x), np.nan)
    # The methods differ in the unused p-value only; the fast one needs more than two entries.
    method = "asymptotic" if x.shape[1] > 2 else "exact"
    pairs = zip(x, y, strict=True)
    return np.array([kendalltau(a, b, method=method).statistic for a, b in pairs], float)


def evenly_spaced(count: int, limit: int) -> NDArray[np.int64]:
    """At most `limit` of the indices below `count`, evenly spaced."""
    return np.linspace(0, max(0, count - 1), min(count, limit)).round().astype(np.int64)
