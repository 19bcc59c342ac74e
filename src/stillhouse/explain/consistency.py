"""Whether the student ranks the classes as its teacher does (Huang et al., 2024)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from stillhouse.explain.phrases import decimal, percent, sentence_start, with_article, with_control
from stillhouse.explain.predictions import Outputs, Predictions
from stillhouse.explain.row_statistics import FiniteMean, Rows, finite_mean, row_spearman
from stillhouse.explain.section import Section, Table

TITLE = "Ranking of the classes"


class Consistency(NamedTuple):
    """How similarly two networks rank the classes."""

    target: float  # share of images
    others: FiniteMean  # Spearman's correlation


def section(predictions: Predictions) -> Section | None:
    """Target-class and non-target consistency of each student with the teacher."""
    teacher = predictions.teacher
    if teacher is None:
        return None
    values = {o.name: consistency(o, teacher, predictions.labels) for o in predictions.students}
    rows = [(n, 100 * c.target, c.others.value, c.others.skipped) for n, c in values.items()]
    columns = ("network", "target class (TC), %", "other classes (NC)", "images without NC")
    return Section(
        "consistency",
        TITLE,
        _sentences(predictions, values),
        (Table(columns, tuple(rows), "Ranking consistency with the teacher", digits=3),),
    )


def consistency(student: Outputs, teacher: Outputs, labels: Tensor) -> Consistency:
    """TC and NC of a student with its teacher: (N, C), (N, C), (N,).

    TC is the share of images in which the target class has the same rank among all classes. NC is
    the mean over images of Spearman's correlation of the other classes, which are ranked again
    without the target class; the paper keeps their ranks among all classes. Ties have their mean
    rank. Ranks of logits are those of probabilities.
    """
    target = labels.numpy()[:, None]
    s, t = (one.logits.double().numpy() for one in (student, teacher))
    same = target_rank(s, target) == target_rank(t, target)
    undefined = np.full(len(s), np.nan)
    kept = np.arange(s.shape[1])[None] != target
    others = [x[kept].reshape(len(s), -1) for x in (s, t)]
    correlation = row_spearman(*others) if s.shape[1] > 2 else undefined
    return Consistency(float(same.mean()), finite_mean(correlation))


def target_rank(scores: Rows, target: NDArray[np.int64]) -> Rows:
    """The rank of the target class from 1 for the highest score: (N, C), (N, 1) -> (N,)."""
    target_scores = np.take_along_axis(scores, target, 1)
    ranks: Rows = (scores > target_scores).sum(1) + ((scores == target_scores).sum(1) + 1) / 2
    return ranks


def _sentences(predictions: Predictions, values: dict[str, Consistency]) -> tuple[str, ...]:
    shares = {n: percent(c.target) for n, c in values.items()}
    target = with_control(predictions, shares, " of images")
    student = sentence_start(with_article(predictions.student))
    first = f"{student} gives the target class the same rank as the teacher in {target}."
    if values[predictions.student.name].others.value is None:
        return (first, "The ranking of the other classes needs at least three classes.")
    others = with_control(predictions, {n: decimal(c.others.value) for n, c in values.items()})
    return (
        first,
        f"Spearman correlation of the ranking of the other classes with the teacher's: {others}; "
        "1 is the same ranking, 0 is unrelated.",
    )
