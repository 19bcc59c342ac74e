"""Whether classes are alike to a student where they are to its teacher."""

from __future__ import annotations

import numpy as np

from stillhouse.explain import row_statistics as rows
from stillhouse.explain.predictions import Hearing
from stillhouse.explain.section import Heat, Matrix, Section, Table
from stillhouse.explain.phrases import compared, decimal, start, the

CELLS = 100  # of a heat map along each side


def section(hearing: Hearing) -> Section | None:
    """The difference of the classes' correlation matrices, student minus teacher."""
    teacher = hearing.teacher
    # Two probabilities that add up to 1 always correlate by -1.
    if teacher is None or len(hearing.classes) < (2 if hearing.several else 3):
        return None
    taught = class_correlation(hearing.probabilities(teacher))
    means = {}
    charts = []
    for voice in hearing.learners:
        difference = class_correlation(hearing.probabilities(voice)) - taught
        means[voice.name] = mean_difference(difference)
        if voice in hearing.pupils:
            charts.append(_heat(voice.name, difference))
    return Section(
        "relations",
        "Relations between classes",
        _said(hearing, means),
        (
            Table(
                ("network", "mean |difference|"),
                tuple(means.items()),
                "Correlation of each pair of classes, against the teacher's",
                digits=3,
            ),
        ),
        tuple(charts),
    )


def class_correlation(probabilities: rows.Rows) -> rows.Rows:
    """Pearson's correlation over samples of the probabilities of classes: (N, C) -> (C, C)."""
    columns = rows.unit(probabilities.T)
    return columns @ columns.T


def mean_difference(difference: rows.Rows) -> float | None:
    """Mean absolute value over pairs of different classes that both networks vary: (C, C)."""
    return rows.average(np.abs(difference[~np.eye(len(difference), dtype=bool)])).value


def grouped(values: rows.Rows, cells: int = CELLS) -> Matrix:
    """A matrix of at most `cells` a side, neighbours averaged: (C, C), NaN as None."""
    starts = np.arange(0, len(values), -(-len(values) // cells))
    known = np.isfinite(values)
    total, count = (
        np.add.reduceat(np.add.reduceat(x, starts, 0), starts, 1)
        for x in (np.where(known, values, 0.0), known.astype(float))
    )
    return tuple(
        tuple(round(float(t / n), 3) if n else None for t, n in zip(*pair, strict=True))
        for pair in zip(total, count, strict=True)
    )


def _heat(name: str, difference: rows.Rows) -> Heat:
    step = -(-len(difference) // CELLS)
    what = "class" if step == 1 else f"class, {step} neighbours averaged"
    return Heat(
        f"{name} minus teacher: correlation of classes", what, what, grouped(difference), True
    )


def _said(hearing: Hearing, means: dict[str, float | None]) -> tuple[str, ...]:
    if means[hearing.student.name] is None:
        return ("Too few images were heard to correlate classes.",)
    text = compared(hearing, {name: decimal(value, 3) for name, value in means.items()})
    return (
        f"{start(the(hearing.student))} correlates a pair of classes otherwise than the teacher "
        f"by {text} on average.",
        "Above 0 a pair goes together more than the teacher says, below 0 less.",
    )
