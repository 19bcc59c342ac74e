"""Correlation of the student's probabilities with its teacher's."""

from __future__ import annotations

from collections.abc import Mapping

from stillhouse.explain.phrases import decimal, with_article, with_control
from stillhouse.explain.predictions import Predictions
from stillhouse.explain.row_statistics import (
    FiniteMean,
    Rows,
    evenly_spaced,
    finite_mean,
    row_kendall,
    row_pearson,
    row_spearman,
)
from stillhouse.explain.section import Cell, Section, Table

TITLE = "Correlation with the teacher"
KENDALL_LIMIT = 1000  # images, because each vector takes a call to scipy

Correlations = Mapping[str, FiniteMean]


def section(predictions: Predictions) -> Section | None:
    """Pearson, Spearman and Kendall correlation over classes and over images."""
    teacher = predictions.teacher
    if teacher is None or teacher.logits.shape[1] < 2:
        return None
    reference = predictions.probabilities(teacher)
    values = {
        one.name: correlations(predictions.probabilities(one), reference)
        for one in predictions.students
    }
    measures = tuple(next(iter(values.values())))
    return Section(
        "correlation",
        TITLE,
        _sentences(predictions, values),
        (
            Table(
                ("network", *measures),
                tuple((n, *(mean.value for mean in v.values())) for n, v in values.items()),
                "Mean correlation of the probabilities with the teacher's",
                digits=3,
            ),
            *_skipped(values),
        ),
    )


def correlations(student: Rows, teacher: Rows) -> Correlations:
    """Mean correlation of images (rows) and of classes (columns): (N, C), (N, C)."""
    sample = evenly_spaced(len(student), KENDALL_LIMIT)
    means = {}
    for where, s, t in (("images", student, teacher), ("classes", student.T, teacher.T)):
        means[f"Pearson, {where}"] = finite_mean(row_pearson(s, t))
        means[f"Spearman, {where}"] = finite_mean(row_spearman(s, t))
        pair = (s[sample], t[sample]) if where == "images" else (s[:, sample], t[:, sample])
        means[f"Kendall, {where}"] = finite_mean(row_kendall(*pair))
    return means


def _skipped(values: Mapping[str, Correlations]) -> tuple[Table, ...]:
    rows: list[tuple[Cell, ...]] = [
        (name, *(mean.skipped for mean in means.values()))
        for name, means in values.items()
        if any(mean.skipped for mean in means.values())
    ]
    if not rows:
        return ()
    columns = ("network", *next(iter(values.values())))
    return (Table(columns, tuple(rows), "Constant vectors, left out of the means"),)


def _sentences(predictions: Predictions, values: Mapping[str, Correlations]) -> tuple[str, ...]:
    def text(measure: str) -> str:
        return with_control(predictions, {n: decimal(v[measure].value) for n, v in values.items()})

    student = with_article(predictions.student)
    sentences = [
        f"Mean Pearson correlation of the probabilities of {student} with the teacher's: "
        f"{text('Pearson, images')} within an image, {text('Pearson, classes')} within a class.",
        f"Rank correlation within an image: Spearman {text('Spearman, images')}, Kendall's tau-b "
        f"{text('Kendall, images')}.",
    ]
    if len(predictions.labels) > KENDALL_LIMIT:
        sentences.append(f"Kendall's tau-b is computed on {KENDALL_LIMIT:,} images, evenly spaced.")
    return tuple(sentences)
