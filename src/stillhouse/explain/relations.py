"""Whether the correlations between classes are the same for student and teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stillhouse.explain.phrases import decimal, with_article, with_control
from stillhouse.explain.predictions import Predictions
from stillhouse.explain.row_statistics import Rows, finite_mean, unit_rows
from stillhouse.explain.section import Heatmap, Matrix, Section, Table

TITLE = "Relations between classes"
CELLS = 100  # of a heatmap along each axis


def section(predictions: Predictions) -> Section | None:
    """The difference of the correlation matrices of the classes, student minus teacher."""
    teacher = predictions.teacher
    # Two probabilities that sum to 1 always have a correlation of -1.
    if teacher is None or len(predictions.classes) < (2 if predictions.multilabel else 3):
        return None
    reference = class_correlation(predictions.probabilities(teacher))
    differences = {
        one.name: class_correlation(predictions.probabilities(one)) - reference
        for one in predictions.students
    }
    means = {name: mean_difference(difference) for name, difference in differences.items()}
    shown = {one.name: average_blocks(differences[one.name]) for one in predictions.main_students}
    return Section(
        "relations",
        TITLE,
        _sentences(predictions, means),
        (
            Table(
                ("network", "mean |difference|"),
                tuple(means.items()),
                "Correlation of each pair of classes, difference from the teacher's",
                digits=3,
            ),
        ),
        _heatmaps(shown, predictions.classes),
    )


def class_correlation(probabilities: Rows) -> Rows:
    """Pearson's correlation over images of the probabilities of classes: (N, C) -> (C, C)."""
    columns = unit_rows(probabilities.T)
    return columns @ columns.T


def mean_difference(difference: Rows) -> float | None:
    """Mean absolute value over pairs of different classes, constant classes left out: (C, C)."""
    return finite_mean(np.abs(difference[~np.eye(len(difference), dtype=bool)])).value


def average_blocks(values: Rows, cells: int = CELLS) -> Matrix:
    """At most `cells` rows and columns, neighbours averaged: (C, C), NaN as None."""
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


def _heatmaps(shown: Mapping[str, Matrix], classes: Sequence[str]) -> tuple[Heatmap, ...]:
    """The differences of several networks, on one scale."""
    known = [abs(value) for matrix in shown.values() for row in matrix for value in row if value]
    most = max(known, default=1.0)
    step = -(-len(classes) // CELLS)
    axis = "class" if step == 1 else f"class, averaged over {step} neighbours"
    names = tuple(classes[::step])
    return tuple(
        Heatmap(
            f"Correlation of classes: {name} minus teacher",
            axis,
            axis,
            matrix,
            True,
            (-most, most),
            names,
            names,
        )
        for name, matrix in shown.items()
    )


def _sentences(predictions: Predictions, means: Mapping[str, float | None]) -> tuple[str, ...]:
    if means[predictions.student.name] is None:
        return ("There are too few images to correlate classes.",)
    text = with_control(predictions, {name: decimal(value, 3) for name, value in means.items()})
    return (
        f"For {with_article(predictions.student)}, the correlation of two classes differs from the "
        f"teacher's by {text} on average.",
        "A positive cell is a pair of classes that are more correlated than in the teacher.",
    )
