"""F1, precision, recall and the number of predicted classes at a threshold of 0.5."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from stillhouse.explain.phrases import decimal, percent, sentence_start, with_article, with_control
from stillhouse.explain.predictions import Predictions
from stillhouse.explain.section import BarChart, Cell, Section, Series, Table
from stillhouse.functional.ranking import above_half, count_decisions, macro_f1, micro_f1

TITLE = "Predicted classes at a threshold of 0.5"
MAX_COUNT = 6  # classes per image; larger counts share a bar
GROUND_TRUTH = "ground truth"
NOTABLE = 0.05  # classes per image


class Decisions(NamedTuple):
    """The predictions at a threshold of 0.5, compared with the labels."""

    micro_f1: float  # of all decisions together
    macro_f1: float  # the mean over classes
    precision: float | None  # None without predicted classes
    recall: float | None  # None without positive labels
    predicted: float  # classes per image
    exact: float  # share of images with the correct number of classes
    more: float
    fewer: float


def section(predictions: Predictions) -> Section:
    """F1, precision and recall of each network, and the number of classes it predicts."""
    positives = predictions.positives
    values = {one.name: decisions(one.logits, positives) for one in predictions.outputs}
    truth = float(positives.double().sum(1).mean())
    rows: list[tuple[Cell, ...]] = [
        (name, *_percents(d[:4]), d.predicted, *_percents(d[5:])) for name, d in values.items()
    ]
    columns = (
        "network",
        "micro F1, %",
        "macro F1, %",
        "precision, %",
        "recall, %",
        "classes per image",
        "correct number, %",
        "too many, %",
        "too few, %",
    )
    return Section(
        "decisions",
        TITLE,
        _sentences(predictions, values, truth),
        (Table(columns, tuple(rows), digits=1),),
        (_bars(predictions),),
    )


def decisions(logits: Tensor, positives: Tensor) -> Decisions:
    """Metrics at a threshold of 0.5: (N, C), (N, C) bool."""
    predicted = above_half(logits)
    counts = count_decisions(predicted, positives)
    right, wrong, missed = (int(count.sum()) for count in counts)
    excess = predicted.sum(1) - positives.sum(1)
    return Decisions(
        float(micro_f1(counts)),
        float(macro_f1(counts)),
        right / (right + wrong) if right + wrong else None,
        right / (right + missed) if right + missed else None,
        float(predicted.double().sum(1).mean()),
        *(float(each.double().mean()) for each in (excess == 0, excess > 0, excess < 0)),
    )


def count_shares(predicted: Tensor, most: int) -> tuple[float, ...]:
    """Percentage of images with 0, 1, ..., `most` or more classes: (N, C) bool."""
    counts = predicted.sum(1).clamp(max=most)
    return tuple((100 * torch.bincount(counts, minlength=most + 1) / len(counts)).tolist())


def _bars(predictions: Predictions) -> BarChart:
    predicted = {one.name: above_half(one.logits) for one in predictions.main}
    predicted = {GROUND_TRUTH: predictions.positives} | predicted
    largest = max(int(each.sum(1).max()) for each in predicted.values())
    most = min(largest, MAX_COUNT)
    labels = [str(count) for count in range(most + 1)]
    labels[-1] += " or more" if most < largest else ""
    places = tuple(map(float, range(most + 1)))
    series = tuple(Series(n, places, count_shares(each, most)) for n, each in predicted.items())
    return BarChart("Number of classes per image", "images, %", tuple(labels), series)


def _percents(values: tuple[float | None, ...]) -> list[float | None]:
    return [None if value is None else 100 * value for value in values]


def _sentences(
    predictions: Predictions, values: dict[str, Decisions], truth: float
) -> tuple[str, ...]:
    student = with_article(predictions.student)
    micro = with_control(predictions, {n: percent(d.micro_f1) for n, d in values.items()})
    counts = {n: decimal(d.predicted) for n, d in values.items()}
    count = with_control(predictions, counts, " classes per image")
    exact = {n: percent(d.exact) for n, d in values.items()}
    first = f"Micro F1 of {student}: {micro}"
    if predictions.teacher is not None:
        first += f"; teacher {percent(values[predictions.teacher.name].micro_f1)}"
    gap = values[predictions.student.name].predicted - truth
    side = "too many" if gap > 0 else "too few"
    return (
        f"{first}.",
        f"{sentence_start(student)} predicts {count}; the images have {truth:.2f}"
        + (f", so it predicts {side}." if abs(gap) >= NOTABLE else "."),
        "It predicts the correct number of classes for "
        f"{with_control(predictions, exact, ' of images')}.",
    )
