"""Which classes are taken for which others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from stillhouse.explain.agreement import predicted_class
from stillhouse.explain.phrases import with_article
from stillhouse.explain.predictions import Predictions
from stillhouse.explain.section import Cell, Heatmap, Section, Table

NAME, TITLE = "confusion", "Confusion of classes"
MAX_CLASSES = 30  # of a heat map, so that the names of all can be read
PAIRS = 10  # rows of the table

Confusions = Mapping[str, Tensor]  # by network: (C, C) rows are labels, columns are predictions


def section(predictions: Predictions) -> Section | None:
    """The confusion matrices of teacher, control and student, and the largest confusions."""
    if len(predictions.classes) < 2:
        return None
    confusions = {
        one.name: confusion_matrix(
            predictions.labels, predicted_class(one), len(predictions.classes)
        )
        for one in predictions.main
    }
    sentence = describe_confusions(with_article(predictions.student), "images")
    student = predictions.student.name
    return Section(
        NAME,
        TITLE,
        (sentence,),
        confusion_tables(confusions, student, predictions.classes),
        confusion_charts(confusions, predictions.classes, "images"),
    )


def confusion_matrix(labels: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """The number of images by label and predicted class: (N,), (N,) -> (C, C)."""
    known = labels >= 0
    places = labels[known] * classes + predicted[known]
    return places.bincount(minlength=classes**2).view(classes, classes).double()


def describe_confusions(student: str, counted: str) -> str:
    """What the charts and the table show."""
    return (
        f"Rows are the classes of the labels, columns the predicted classes. The table has the "
        f"confusions with most {counted} of {student}."
    )


def label_shares(confusion: Tensor) -> Tensor:
    """Each row over its sum, 0 for a class that does not occur: (C, C) -> (C, C)."""
    return confusion / confusion.sum(1, keepdim=True).clamp(min=1)


def confusion_charts(
    confusions: Confusions, classes: Sequence[str], counted: str
) -> tuple[Heatmap, ...]:
    """A heat map of each network in percent of the label; none for many classes."""
    if len(classes) > MAX_CLASSES:
        return ()
    names = tuple(classes)
    return tuple(
        Heatmap(
            f"Share of the {counted} of each class, %: {name}",
            "predicted class",
            "label",
            tuple(tuple(row) for row in (100 * label_shares(confusion)).tolist()),
            limits=(0.0, 100.0),
            row_names=names,
            column_names=names,
        )
        for name, confusion in confusions.items()
    )


def confusion_tables(
    confusions: Confusions, student: str, classes: Sequence[str]
) -> tuple[Table, ...]:
    """The pairs of classes that the student confuses most, and how often others do, in percent."""
    shares = {name: 100 * label_shares(confusion) for name, confusion in confusions.items()}
    own = confusions[student]
    wrong = own * (1 - torch.eye(len(own), dtype=torch.double))
    rows: list[tuple[Cell, ...]] = []
    for place in wrong.flatten().argsort(descending=True, stable=True)[:PAIRS].tolist():
        label, taken = divmod(place, len(wrong))
        if wrong[label, taken] > 0:
            values = (float(share[label, taken]) for share in shares.values())
            rows.append((classes[label], classes[taken], *values))
    if not rows:
        return ()
    columns = ("label", "predicted", *(f"{name}, %" for name in shares))
    title = f"Largest confusions of {student}, in percent of the label"
    return (Table(columns, tuple(rows), title, digits=1),)
