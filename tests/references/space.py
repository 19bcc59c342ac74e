"""The product space written a second time: any point, evaluated stage by stage in plain loops.

A point is only read here: its stages are known by `kind` and by their options.
"""

from __future__ import annotations

import cmath
from collections.abc import Sequence
from typing import Any

from references.plain import (
    Row,
    Rows,
    columns,
    correlation,
    cosine,
    cross_entropy,
    kl,
    sigmoid,
    size,
    softmax,
    standardized,
    still,
)
from references.softmax import power_sum

Weight = Sequence[float]


def value(
    point: Any, student: Rows, teacher: Rows, target: Sequence[int], weight: Weight, mass: float
) -> tuple[complex, float]:
    """The sum that a point gives, and what it is to be divided by."""
    s, t = [], []
    for row, other, y in zip(student, teacher, target, strict=True):
        s.append(prepared(point.preprocess, row, y))
        t.append(prepared(point.teacher_transform, prepared(point.preprocess, other, y), y))
    if point.activation.kind == "sample_softmax":
        rows, weight = chosen(point, s, t, weight), [1.0] * len(student[0])
    elif getattr(point.activation, "across", "row") == "batch":
        rows, weight = related(point, s, t, weight), [1.0] * len(student[0])
    else:
        rows = [
            compared(point, a, b, y, raw_a, raw_b)
            for a, b, y, raw_a, raw_b in zip(s, t, target, student, teacher, strict=True)
        ]
    total = kappa(point) * sum(w * row for w, row in zip(weight, rows, strict=True))
    masses = {"mean": sum(weight), "total": 1.0, "per_object": mass}
    return total, masses[point.reduction.kind]


def kappa(point: Any) -> float:
    divergence = point.distance.kind in DIVERGENCES
    square = point.kappa == "square" or (point.kappa == "auto" and divergence)
    return point.activation.temperature**2 if square else 1.0


def prepared(stage: Any, row: Row, y: int) -> list[complex]:
    match stage.kind:
        case "identity":
            return list(row)
        case "standardize":
            return standardized(row, stage.ddof, stage.eps)
        case "scale":
            return [stage.factor * z for z in row]
        case "label_temperature":
            return [z / (stage.labelled if c == y else stage.others) for c, z in enumerate(row)]
    raise NotImplementedError(stage.kind)


def compared(point: Any, s: Row, t: Row, y: int, raw_s: Row, raw_t: Row) -> complex:
    """The loss of one row, its classes weighed and then summed or averaged."""
    pairs = zip(events(point.activation, s, y), events(point.activation, t, y), strict=True)
    losses = [distance(point.distance, a, b) for a, b in pairs]
    weights = weighed(point.weighting, raw_s, raw_t)
    weights = weights if len(weights) == len(losses) else weights * len(losses)
    loss = sum(w * d for w, d in zip(weights, losses, strict=True))
    averaged = point.reduction.inner == "mean" and point.distance.kind in DIVERGENCES
    return loss / len(s) if averaged else loss


def related(point: Any, s: Rows, t: Rows, weight: Weight) -> list[complex]:
    """The loss of each class over the batch."""
    a, b = ([events(point.activation, row, 0)[0] for row in rows] for rows in (s, t))
    pairs = zip(columns(a), columns(b), strict=True)
    return [distance(point.distance, x, y, weight) for x, y in pairs]


def chosen(point: Any, s: Rows, t: Rows, weight: Weight) -> list[complex]:
    """The divergence of each class between which samples it points at."""
    tau = point.activation.temperature
    a, b = ([shares(column, weight, tau) for column in columns(list(rows))] for rows in (s, t))
    return [distance(point.distance, x, y) for x, y in zip(a, b, strict=True)]


def shares(column: Row, weight: Weight, tau: float) -> list[complex]:
    """A softmax over samples, each as likely as so many of its kind."""
    powers = [w * cmath.exp(z / tau) for w, z in zip(weight, column, strict=True)]
    return [power / sum(powers) for power in powers]


def events(stage: Any, row: Row, y: int) -> list[list[complex]]:
    """What is compared, one list of numbers for each loss of a row."""
    tau = stage.temperature
    others = [z for c, z in enumerate(row) if c != y]
    match stage.kind:
        case "softmax" | "probabilities":
            return [softmax(row, tau)]
        case "sigmoid":
            return [[sigmoid(z / tau), sigmoid(-z / tau)] for z in row]
        case "target_vs_rest":
            hit = softmax(row, tau)[y]
            return [[hit, 1 - hit]]
        case "rest_softmax" | "rest_probabilities":
            return [softmax(others, tau)]
        case "partial_softmax":
            return [softmax([row[y], *others], tau)]
        case "responses":
            return [[sigmoid(z / tau) for z in row]]
        case "raw":
            return [[z / tau for z in row]]
    raise NotImplementedError(stage.kind)


DIVERGENCES = ("kl", "reverse_kl", "cross_entropy", "jensen_shannon")


def distance(stage: Any, s: Row, t: Row, weight: Weight | None = None) -> complex:
    match stage.kind:
        case "kl":
            return kl(t, s)
        case "reverse_kl":
            return kl(s, t)
        case "cross_entropy":
            return cross_entropy(t, s)
        case "jensen_shannon":
            middle = [(a + b) / 2 for a, b in zip(s, t, strict=True)]
            return (kl(s, middle) + kl(t, middle)) / 2
        case "pearson":
            return 1 - correlation(s, t, weight, stage.mode, stage.eps)
        case "cosine":
            return 1 - cosine(s, t, weight, stage.mode, stage.eps)
        case "mse":
            weight = weight or [1.0] * len(s)
            squares = [w * (a - b) ** 2 for w, a, b in zip(weight, s, t, strict=True)]
            return sum(squares) / sum(weight)
        case "dice":
            return 1 - overlap(s, t, weight or [1.0] * len(s))
    raise NotImplementedError(stage.kind)


def overlap(s: Row, t: Row, weight: Weight) -> complex:
    """Twice the product over both squares."""
    product = sum(w * a * b for w, a, b in zip(weight, s, t, strict=True))
    squares = [sum(w * a * a for w, a in zip(weight, row, strict=True)) for row in (s, t)]
    return 2 * product / sum(squares)


def weighed(stage: Any, s: Row, t: Row) -> list[complex]:
    """What the row counts, or each of its classes."""
    match stage.kind:
        case "uniform":
            return [1.0]
        case "teacher_confidence":
            return [max(p.real for p in softmax(t)) ** stage.power]
        case "power_sum":
            return [power_sum(list(t), stage.gamma)]
        case "disagreement":
            gaps = [size(sigmoid(b) - sigmoid(a)) for a, b in zip(s, t, strict=True)]
            powers = [gap**stage.beta if gap else 0.0 for gap in gaps]
            return [still(x) for x in powers] if stage.detach else powers
    raise NotImplementedError(stage.kind)


def least(point: Any, teacher: Rows, target: Sequence[int], weight: Weight) -> complex:
    """What cross-entropy leaves at student == teacher: the teacher's entropy, counted alike."""
    total: complex = 0
    for row, y, w in zip(teacher, target, weight, strict=True):
        soft = prepared(point.teacher_transform, prepared(point.preprocess, row, y), y)
        uncertain = [-sum(p * cmath.log(p) for p in e) for e in events(point.activation, soft, y)]
        counts = weighed(point.weighting, row, row)
        counts = counts if len(counts) == len(uncertain) else counts * len(uncertain)
        loss = sum(c * h for c, h in zip(counts, uncertain, strict=True))
        total += w * (loss / len(row) if point.reduction.inner == "mean" else loss)
    return kappa(point) * total
