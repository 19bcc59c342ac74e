"""Whether the confidence of a network matches its accuracy (Guo et al., 2017)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor

from stillhouse.explain.phrases import percent, with_article, with_control
from stillhouse.explain.predictions import Outputs, Predictions
from stillhouse.explain.row_statistics import softmax_rows
from stillhouse.explain.section import LineChart, Section, Series, Table
from stillhouse.tasks.meters.accuracy import CALIBRATION_BINS

TITLE = "Calibration"
NOTABLE = 0.001  # difference of confidence and accuracy


class Calibration(NamedTuple):
    """Accuracy and confidence of one network; bins without images are left out."""

    accuracy: float
    confidence: float  # mean probability of the predicted class
    entropy: float  # mean, in nats
    error: float  # expected calibration error (ECE)
    bin_confidence: tuple[float, ...]
    bin_accuracy: tuple[float, ...]


def section(predictions: Predictions) -> Section:
    """ECE of each network, and the reliability diagram of teacher, control and student."""
    values = {one.name: calibration(one.logits, predictions.labels) for one in predictions.outputs}
    rows = tuple(
        (name, 100 * c.accuracy, 100 * c.confidence, 100 * c.error, c.entropy)
        for name, c in values.items()
    )
    columns = ("network", "accuracy, %", "mean confidence, %", "ECE, %", "entropy, nats")
    return Section(
        "calibration",
        TITLE,
        _sentences(predictions, values),
        (Table(columns, rows),),
        (_reliability_diagram(predictions.main, values),),
    )


def calibration(logits: Tensor, labels: Tensor) -> Calibration:
    """Calibration over 15 equal bins of confidence: (N, C), (N,)."""
    p = softmax_rows(logits)
    confidence, hit = p.max(1), (p.argmax(1) == labels.numpy()).astype(float)
    entropy = -(p * np.log(np.where(p > 0, p, 1.0))).sum(1)
    index = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    count, hits, total = (
        np.bincount(index, weights=w, minlength=CALIBRATION_BINS)
        for w in (np.ones_like(hit), hit, confidence)
    )
    filled = count > 0
    return Calibration(
        float(hit.mean()),
        float(confidence.mean()),
        float(entropy.mean()),
        float(np.abs(hits - total).sum() / len(p)),
        tuple((total[filled] / count[filled]).tolist()),
        tuple((hits[filled] / count[filled]).tolist()),
    )


def _reliability_diagram(
    networks: tuple[Outputs, ...], values: dict[str, Calibration]
) -> LineChart:
    series = tuple(
        Series(one.name, values[one.name].bin_confidence, values[one.name].bin_accuracy)
        for one in networks
    )
    return LineChart("Reliability diagram", "confidence", "accuracy", series, diagonal=True)


def _sentences(predictions: Predictions, values: dict[str, Calibration]) -> tuple[str, ...]:
    student = values[predictions.student.name]
    errors = with_control(predictions, {name: percent(c.error) for name, c in values.items()})
    sentence = f"Expected calibration error (ECE) of {with_article(predictions.student)}: {errors}"
    if predictions.teacher is not None:
        sentence += f"; teacher {percent(values[predictions.teacher.name].error)}"
    gap = student.confidence - student.accuracy
    means = f"mean confidence {percent(student.confidence)}, accuracy {percent(student.accuracy)}"
    if abs(gap) >= NOTABLE:
        means = f"{'Overconfident' if gap > 0 else 'Underconfident'}: {means}"
    return (f"{sentence}.", f"{means[:1].upper()}{means[1:]}.")
