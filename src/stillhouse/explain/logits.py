"""Mean and spread of the logits, and their distance from the teacher's (Sun et al., 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from stillhouse.explain.phrases import decimal, with_article, with_control
from stillhouse.explain.predictions import Outputs, Predictions
from stillhouse.explain.row_statistics import Rows
from stillhouse.explain.section import Cell, DensityPlot, Histogram2D, Section, Table
from stillhouse.functional import softmax_kl

TITLE = "Logits"
BINS = 40  # of the histogram along each axis
TEMPERATURES = (1.0, 4.0)


class LogitDistance(NamedTuple):
    """Distance from the teacher; standardised logits have mean 0 and standard deviation 1."""

    mean: float
    largest: float
    standardised_mean: float
    standardised_largest: float
    divergences: tuple[float, ...]  # KL(teacher || student) at each of TEMPERATURES


def section(predictions: Predictions) -> Section:
    """Mean and spread of the logits per image, and their distance from the teacher's per class."""
    teacher = predictions.teacher
    values = {} if teacher is None else logit_distances(predictions, teacher)
    return Section(
        "logits",
        TITLE,
        _sentences(predictions, values),
        (_moments_table(predictions.outputs), *_distance_table(values)),
        (moment_histogram(predictions.main),),
    )


def logit_moments(logits: Tensor) -> tuple[Rows, Rows]:
    """Mean and population standard deviation of each image: (N, C) -> (N,), (N,)."""
    z: Rows = logits.double().numpy()
    return z.mean(1), z.std(1)


def standardise_logits(logits: Rows) -> Rows:
    """Each row with mean 0 and standard deviation 1, a constant row as zeros: (N, C) -> (N, C)."""
    centred = logits - logits.mean(1, keepdims=True)
    std = centred.std(1, keepdims=True)
    standardised: Rows = np.divide(centred, std, out=np.zeros_like(centred), where=std > 0)
    return standardised


def profile_gap(student: Rows, teacher: Rows, labels: Tensor) -> tuple[float, float]:
    """Mean and maximum |difference| of the mean logits per true class: (N, C), (N, C), (N,).

    The matrix has one row per true class that has images and one column per class; the true class
    itself counts as 0.
    """
    present, row = np.unique(labels.numpy(), return_inverse=True)
    gap = np.zeros((len(present), student.shape[1]))
    np.add.at(gap, row, student - teacher)
    gap = np.abs(gap / np.bincount(row)[:, None])
    gap[np.arange(len(present)), present] = 0
    return float(gap.mean()), float(gap.max())


def logit_distances(predictions: Predictions, teacher: Outputs) -> dict[str, LogitDistance]:
    """The distance of each student from the teacher."""
    t: Rows = teacher.logits.double().numpy()
    standardised = standardise_logits(t)
    distances = {}
    for one in predictions.students:
        s: Rows = one.logits.double().numpy()
        raw = profile_gap(s, t, predictions.labels)
        scaled = profile_gap(standardise_logits(s), standardised, predictions.labels)
        pair = one.logits.double(), teacher.logits.double()
        kl = tuple(float(softmax_kl(*pair, tau).mean()) for tau in TEMPERATURES)
        distances[one.name] = LogitDistance(*raw, *scaled, kl)
    return distances


def moment_histogram(networks: Sequence[Outputs]) -> DensityPlot:
    """The number of images by mean and standard deviation of their logits, on a common grid."""
    pairs = {one.name: logit_moments(one.logits) for one in networks}
    x_edges, y_edges = (_edges([pair[axis] for pair in pairs.values()]) for axis in (0, 1))
    densities = []
    for name, (mean, std) in pairs.items():
        counts = np.histogram2d(std, mean, (y_edges, x_edges))[0]
        densities.append(Histogram2D(name, tuple(tuple(int(n) for n in row) for row in counts)))
    return DensityPlot(
        "Mean and standard deviation of the logits of each image",
        "mean of logits",
        "standard deviation of logits",
        tuple(map(float, x_edges)),
        tuple(map(float, y_edges)),
        tuple(densities),
    )


def _edges(values: Sequence[Rows]) -> Rows:
    low, high = min(v.min() for v in values), max(v.max() for v in values)
    # Equal values are put in the middle of an interval that has a width.
    margin = 0.5 if high - low <= 1e-9 * max(1.0, abs(high)) else 0.0
    return np.linspace(low - margin, high + margin, BINS + 1)


def _moments_table(networks: Sequence[Outputs]) -> Table:
    rows = []
    for one in networks:
        mean, std = logit_moments(one.logits)
        rows.append((one.name, float(mean.mean()), float(std.mean()), float((std**2).mean())))
    columns = ("network", "mean", "standard deviation", "variance")
    return Table(columns, tuple(rows), "Logits of an image, averaged over images", digits=3)


def _distance_table(values: dict[str, LogitDistance]) -> tuple[Table, ...]:
    if not values:
        return ()
    columns = (
        "network",
        "mean |difference|",
        "max |difference|",
        "mean, standardised",
        "max, standardised",
        *(f"KL, temperature {tau:g}" for tau in TEMPERATURES),
    )
    rows: list[tuple[Cell, ...]] = [(n, *d[:4], *d.divergences) for n, d in values.items()]
    return (Table(columns, tuple(rows), "Distance from the teacher", digits=3),)


def _sentences(predictions: Predictions, values: dict[str, LogitDistance]) -> tuple[str, ...]:
    stds = {o.name: decimal(float(logit_moments(o.logits)[1].mean())) for o in predictions.outputs}
    first = (
        f"Mean standard deviation of the logits of {with_article(predictions.student)} within an "
        f"image: {with_control(predictions, stds)}"
    )
    if not values or predictions.teacher is None:
        return (f"{first}.",)
    mean = with_control(predictions, {n: decimal(d.mean, 3) for n, d in values.items()})
    scaled = with_control(
        predictions, {n: decimal(d.standardised_mean, 3) for n, d in values.items()}
    )
    divergences = {n: decimal(d.divergences[0], 3) for n, d in values.items()}
    return (
        f"{first}; teacher {stds[predictions.teacher.name]}.",
        "For each true class, the mean logits of the other classes differ from the teacher's by "
        f"{mean} on average.",
        f"After the logits of each image are standardised, they differ by {scaled}.",
        "KL divergence from the teacher at temperature 1: "
        f"{with_control(predictions, divergences, ' nats')}.",
    )
