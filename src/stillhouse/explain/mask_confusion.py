"""Which classes pixels are taken for."""

from __future__ import annotations

import torch
from torch import Tensor

from stillhouse.explain.mask_predictions import MaskOutputs, MaskPredictions
from stillhouse.explain.phrases import with_article
from stillhouse.explain.section import Cell, Heatmap, Section, Table

NAME, TITLE = "mask_confusion", "Confusion of pixels"
MOST = 30  # classes of a heat map
PAIRS = 8  # rows of the table


def section(predictions: MaskPredictions) -> Section:
    """The confusion matrix of the student in percent of the labels, and the largest confusions."""
    student = predictions.student
    shares = shares_of_labels(student.confusion)
    classes = len(shares)
    charts: tuple[Heatmap, ...] = ()
    if classes <= MOST:
        charts = (
            Heatmap(
                "Share of the pixels of each class, %",
                "predicted: " + ", ".join(predictions.classes),
                "label, in the same order from the top",
                tuple(tuple(row) for row in (100 * shares).tolist()),
            ),
        )
    sentence = (
        f"Rows are the classes of the labels, columns what {with_article(student)} predicts. "
        "The table has the confusions with most pixels."
    )
    return Section(NAME, TITLE, (sentence,), (_table(predictions),), charts)


def shares_of_labels(confusion: Tensor) -> Tensor:
    """Each row over its sum, 0 for a class without pixels: (C, C) -> (C, C)."""
    return confusion / confusion.sum(1, keepdim=True).clamp(min=1)


def _table(predictions: MaskPredictions) -> Table:
    """The pairs of classes that are confused most by the student, and how often by others."""
    student = predictions.student
    wrong = student.confusion * (1 - torch.eye(len(student.confusion), dtype=torch.double))
    best = wrong.flatten().argsort(descending=True, stable=True)[:PAIRS].tolist()
    rows: list[tuple[Cell, ...]] = []
    for place in best:
        label, taken = divmod(place, len(wrong))
        if wrong[label, taken] > 0:
            names = predictions.classes[label], predictions.classes[taken]
            rows.append((*names, *(_percent(one, label, taken) for one in predictions.main)))
    columns = ("label", "predicted", *(f"{one.name}, %" for one in predictions.main))
    return Table(columns, tuple(rows), "Largest confusions, in percent of the label", digits=1)


def _percent(outputs: MaskOutputs, label: int, taken: int) -> float:
    return float(100 * shares_of_labels(outputs.confusion)[label, taken])
