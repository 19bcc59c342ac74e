"""DIST, on softmax or on sigmoids."""

from __future__ import annotations

from collections.abc import Sequence

from references.plain import Rows, columns, correlation, mean, sigmoid, softmax


def relations(
    student: Rows, teacher: Rows, weight: Sequence[float] | None = None, mode: str = "clamp"
) -> tuple[complex, complex]:
    """Inter and intra of two matrices of probabilities."""
    inter = [1 - correlation(s, t, None, mode) for s, t in zip(student, teacher, strict=True)]
    intra = [
        1 - correlation(s, t, weight, mode)
        for s, t in zip(columns(student), columns(teacher), strict=True)
    ]
    return mean(inter, weight), mean(intra)


def dist(
    student: Rows,
    teacher: Rows,
    weight: Sequence[float] | None = None,
    tau: float = 1.0,
    beta: float = 2.0,
    gamma: float = 2.0,
    reference: bool = False,
) -> complex:
    s, t = ([softmax(row, tau) for row in rows] for rows in (student, teacher))
    inter, intra = relations(s, t, weight, "add" if reference else "clamp")
    return (beta * inter + gamma * intra) * (tau**2 if reference else 1)


def tld_dist(
    student: Rows,
    teacher: Rows,
    weight: Sequence[float] | None = None,
    tau: float = 0.5,
    beta: float = 1.0,
    gamma: float = 1.0,
    reference: bool = False,
) -> complex:
    s, t = ([[sigmoid(z / tau) for z in row] for row in rows] for rows in (student, teacher))
    inter, intra = relations(s, t, weight, "add" if reference else "clamp")
    return (beta * inter + gamma * intra) * (tau**2 if reference else 1)
