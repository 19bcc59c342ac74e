"""CD and ID of L2D: loops over classes, images and pairs.

Embeddings are [n][c][e], labels [n][c] of 0 and 1. `paper` is the formula of the paper, without it
the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence

from references.batchwise import length, minus
from references.plain import Row, Rows, size

Embeddings = Sequence[Rows]
Labels = Sequence[Sequence[float]]


def matrix(rows: Rows) -> list[list[complex]]:
    """The distance of each two rows, the least 1e-6; of a row and itself 0."""
    return [
        [0j if i == j else max(length(minus(a, b)), 1e-6, key=abs) for j, b in enumerate(rows)]
        for i, a in enumerate(rows)
    ]


def in_units_of_the_mean(distances: list[list[complex]]) -> list[list[complex]]:
    """The mean over all entries that are no zero."""
    entries = [d for row in distances for d in row if d != 0]
    mean = sum(entries) / len(entries)
    return [[d / mean for d in row] for row in distances]


def smooth_l1(gap: complex) -> complex:
    return gap * gap / 2 if abs(gap) < 1 else size(gap) - 0.5


def group(student: Rows, teacher: Rows, paper: bool = False) -> complex:
    """One class, or one image."""
    if len(student) < 2:
        return 0j
    s, t = matrix(student), matrix(teacher)
    if not paper:
        s, t = in_units_of_the_mean(s), in_units_of_the_mean(t)
    found = 0j
    for ours, theirs in zip(s, t, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            found += smooth_l1(a - b)
    return found if paper else found / len(student)


def class_aware(
    student: Embeddings, teacher: Embeddings, labels: Labels, paper: bool = False
) -> complex:
    found = 0j
    for c in range(len(labels[0])):
        images = [n for n in range(len(labels)) if labels[n][c] > 0]
        found += group([student[n][c] for n in images], [teacher[n][c] for n in images], paper)
    return found


def instance_aware(
    student: Embeddings,
    teacher: Embeddings,
    labels: Labels,
    paper: bool = False,
    weight: Row | None = None,
) -> complex:
    found = 0j
    for n, row in enumerate(labels):
        classes = [c for c in range(len(row)) if row[c] > 0]
        counts = 1.0 if weight is None else weight[n]
        s, t = ([side[n][c] for c in classes] for side in (student, teacher))
        found += counts * group(s, t, paper)
    return found
