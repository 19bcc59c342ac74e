"""The arithmetic that formulas need, on Python numbers that may be complex.

A complex number carries a derivative exactly: the imaginary part of f(x + ih) is h f'(x) for an h
too small to matter otherwise. So the formulas take square roots and logarithms of complex numbers,
and dropping the imaginary part is what "detach" means.
"""

from __future__ import annotations

import cmath
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Row = Sequence[complex]
Rows = Sequence[Row]
STEP = 1e-30


def gradient(loss: Callable[[Any], complex], at: Any) -> np.ndarray:
    """The derivative of a loss by each number of a nested list, one after another."""
    point = np.array(at, dtype=complex)
    slope = np.zeros(point.shape)
    for index in np.ndindex(point.shape):
        point[index] += STEP * 1j
        slope[index] = loss(point.tolist()).imag / STEP
        point[index] = point[index].real
    return slope


def still(x: complex) -> complex:
    return complex(x.real)


def size(x: complex) -> complex:
    return -x if x.real < 0 else x


def softmax(row: Row, temperature: float = 1.0) -> list[complex]:
    top = max(z.real for z in row)
    powers = [cmath.exp((z - top) / temperature) for z in row]
    return [power / sum(powers) for power in powers]


def sigmoid(z: complex) -> complex:
    return 1 / (1 + cmath.exp(-z))


def kl(p: Row, q: Row) -> complex:
    """KL(p || q)."""
    return sum(a * cmath.log(a / b) for a, b in zip(p, q, strict=True))


def cross_entropy(p: Row, q: Row) -> complex:
    return -sum(a * cmath.log(b) for a, b in zip(p, q, strict=True))


def entropy(p: Row) -> complex:
    return cross_entropy(p, p)


def mean(values: Row, weight: Sequence[float] | None = None) -> complex:
    weight = weight or [1.0] * len(values)
    return sum(w * v for w, v in zip(weight, values, strict=True)) / sum(weight)


def cosine(
    a: Row,
    b: Row,
    weight: Sequence[float] | None = None,
    mode: str = "clamp",
    eps: float = 1e-8,
) -> complex:
    weight = weight or [1.0] * len(a)
    dot = sum(w * x * y for w, x, y in zip(weight, a, b, strict=True))
    norm_a, norm_b = (
        cmath.sqrt(sum(w * x * x for w, x in zip(weight, v, strict=True))) for v in (a, b)
    )
    if mode == "add":
        return dot / (norm_a * norm_b + eps)
    return dot / (max(norm_a, eps, key=abs) * max(norm_b, eps, key=abs))


def correlation(
    a: Row,
    b: Row,
    weight: Sequence[float] | None = None,
    mode: str = "clamp",
    eps: float = 1e-8,
) -> complex:
    centre_a, centre_b = mean(a, weight), mean(b, weight)
    return cosine([x - centre_a for x in a], [x - centre_b for x in b], weight, mode, eps)


def standardized(row: Row, ddof: int, eps: float) -> list[complex]:
    centre = sum(row) / len(row)
    variance = sum((z - centre) ** 2 for z in row) / (len(row) - ddof)
    return [(z - centre) / (cmath.sqrt(variance) + eps) for z in row]


def columns(rows: Rows) -> list[list[complex]]:
    return [list(column) for column in zip(*rows, strict=True)]
