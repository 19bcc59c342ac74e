"""The IoU of each class."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from stillhouse.explain.mask_predictions import MaskPredictions
from stillhouse.explain.phrases import (
    baseline_name,
    count_of,
    join_names,
    sentence_start,
    with_article,
)
from stillhouse.explain.section import BarChart, Cell, Section, Series, Table
from stillhouse.tasks.meters.mean_iou import iou_of_classes, mean_of

NAME, TITLE = "class_iou", "IoU of each class"
BARS = 40  # classes in the chart, those with most pixels
NOTABLE = 0.1  # points that a sentence names


def section(predictions: MaskPredictions) -> Section:
    """The IoU of each class of teacher, control and student, and the share of its pixels."""
    values = {one.name: iou_of_classes(one.confusion) for one in predictions.main}
    pixels = predictions.student.confusion.sum(1)
    order = pixels.argsort(descending=True, stable=True).tolist()
    return Section(
        NAME,
        TITLE,
        tuple(_sentences(predictions, values)),
        (_table(predictions, values, pixels, order),),
        (_bars(predictions, values, order[:BARS]),),
    )


def points(value: float) -> float | None:
    """A share in percent, None for NaN."""
    return None if value != value else 100 * value


def _bars(predictions: MaskPredictions, values: dict[str, Tensor], order: list[int]) -> BarChart:
    places = tuple(map(float, range(len(order))))
    series = tuple(
        Series(name, places, tuple(points(float(iou[c])) for c in order))
        for name, iou in values.items()
    )
    labels = tuple(predictions.classes[c] for c in order)
    title = f"IoU of each class, the {len(order)} with most pixels first"
    return BarChart(title, "IoU, %", labels, series)


def _table(
    predictions: MaskPredictions, values: dict[str, Tensor], pixels: Tensor, order: list[int]
) -> Table:
    share = 100 * pixels / pixels.sum().clamp(min=1)
    rows: list[tuple[Cell, ...]] = [
        (predictions.classes[c], float(share[c]), *(points(float(v[c])) for v in values.values()))
        for c in order
    ]
    means = (mean_of(v) for v in values.values())
    rows.append(("mean", None, *means))
    columns = ("class", "pixels, %", *(f"{name}, IoU %" for name in values))
    return Table(columns, tuple(rows), "IoU of each class", digits=1)


def _sentences(predictions: MaskPredictions, values: dict[str, Tensor]) -> Iterator[str]:
    student = predictions.student
    own = values[student.name]
    images = count_of(student.count, "image")
    source = f" of {predictions.source}" if predictions.source else ""
    yield (
        f"{sentence_start(with_article(student))} reaches a mean IoU of {mean_of(own):.1f} % on "
        f"{images}{source}."
    )
    absent = [
        name for name, iou in zip(predictions.classes, own.tolist(), strict=True) if iou != iou
    ]
    if absent:
        yield (
            f"Left out of the mean: {join_names(absent)}, in neither the labels nor the "
            f"predictions of {with_article(student)}."
        )
    control = predictions.control
    if control is None or control is student:
        return
    change = 100 * (own - values[control.name])
    known = [c for c in change.argsort(descending=True).tolist() if change[c] == change[c]]
    gained = [c for c in known if change[c] >= NOTABLE]
    lost = [c for c in reversed(known) if change[c] <= -NOTABLE]
    yield (
        f"Against {baseline_name(predictions)} ({mean_of(values[control.name]):.1f} %), "
        f"{len(gained)} of {len(own)} classes gain ({_named(predictions, change, gained)}) and "
        f"{len(lost)} lose ({_named(predictions, change, lost)})."
    )


def _named(predictions: MaskPredictions, change: Tensor, order: list[int]) -> str:
    texts = [f"{predictions.classes[c]} {float(change[c]):+.1f}" for c in order[:3]]
    return ", ".join(texts) or "none"
