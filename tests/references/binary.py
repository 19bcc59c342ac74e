"""MLD, TLD, BCD, PS, Dice."""

from __future__ import annotations

from collections.abc import Sequence

from references.plain import (
    Rows,
    cross_entropy,
    entropy,
    kl,
    mean,
    sigmoid,
    size,
    softmax,
    still,
)

Weight = Sequence[float] | None


def two(p: complex) -> list[complex]:
    return [p, 1 - p]


def mld(student: Rows, teacher: Rows, weight: Weight = None) -> complex:
    losses = [
        sum(kl(two(sigmoid(b)), two(sigmoid(a))) for a, b in zip(s, t, strict=True))
        for s, t in zip(student, teacher, strict=True)
    ]
    return mean(losses, weight)


def tld(
    student: Rows,
    teacher: Rows,
    weight: Weight = None,
    tau: float = 0.5,
    subtract_entropy: bool = False,
) -> complex:
    losses = []
    for s, t in zip(student, teacher, strict=True):
        loss: complex = 0
        for a, b in zip(s, t, strict=True):
            p, q = two(sigmoid(b / tau)), two(sigmoid(a / tau))
            loss += cross_entropy(p, q) - (entropy(p) if subtract_entropy else 0)
        losses.append(tau**2 * loss)
    return mean(losses, weight)


def bcd(
    student: Rows,
    teacher: Rows,
    weight: Weight = None,
    beta: float = 1.0,
    detach: bool = False,
) -> complex:
    losses = []
    for s, t in zip(student, teacher, strict=True):
        loss: complex = 0
        for a, b in zip(s, t, strict=True):
            p, q = sigmoid(b), sigmoid(a)
            gap = size(p - q) ** beta
            loss += (still(gap) if detach else gap) * cross_entropy(two(p), two(q))
        losses.append(loss)
    return mean(losses, weight)


def ps(
    student: Rows, teacher: Rows, target: Sequence[Sequence[int]], weight: Weight = None
) -> complex:
    """`target` is multi-hot."""
    losses = []
    for s, t, hot in zip(student, teacher, target, strict=True):
        negatives = [c for c, y in enumerate(hot) if not y]
        loss: complex = 0
        for positive in (c for c, y in enumerate(hot) if y):
            support = [*negatives, positive]
            loss += kl(softmax([t[c] for c in support]), softmax([s[c] for c in support]))
        losses.append(loss)
    return mean(losses, weight)


def dice(student: Rows, teacher: Rows, weight: Weight = None) -> complex:
    losses = []
    for s, t in zip(student, teacher, strict=True):
        p, q = ([sigmoid(z) for z in row] for row in (s, t))
        product = sum(a * b for a, b in zip(p, q, strict=True))
        squares = sum(a * a for a in p) + sum(b * b for b in q)
        losses.append(1 - 2 * product / squares)
    return mean(losses, weight)
