"""Average precision of boxes: by class, by size of the objects, and as curves."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from stillhouse.explain.detections import DetectionPredictions
from stillhouse.explain.per_class import PerClass
from stillhouse.explain.phrases import count_of, percent, to_percent, with_article, with_control
from stillhouse.explain.section import BarChart, Cell, LineChart, Section, Series, Table
from stillhouse.tasks.meters.coco import RECALLS, CocoPrecision, coco_precision
from stillhouse.tasks.meters.detection_rows import ObjectRows

NAME, TITLE = "box_precision", "Average precision of boxes"
SIZES = ("small", "medium", "large")
LIMITS = (32.0**2, 96.0**2)  # pixels: the largest area of a small and of a medium object
FIRST_SIZE = 3  # index of small objects among the numbers of COCO
IOUS = {"0.5": 0, "0.75": 5}  # index of each curve in the precisions

Results = Mapping[str, CocoPrecision]  # by network


def section(predictions: DetectionPredictions) -> Section:
    """AP of teacher, control and student by the protocol of COCO, whatever that of the task."""
    size = len(predictions.classes)
    results = {one.name: coco_precision(one.rows, size) for one in predictions.main}
    return precision_section(NAME, TITLE, predictions, results)


def precision_section(
    name: str, title: str, predictions: DetectionPredictions, results: Results
) -> Section:
    """The section of the results of COCO for boxes or for masks."""
    size, objects = len(predictions.classes), predictions.objects
    count = objects.label[~objects.ignored].bincount(minlength=size).numpy()
    values = {one: result.per_class.numpy() for one, result in results.items()}
    per_class = PerClass(predictions, values, count, "AP", "objects")
    if not per_class.order:
        return Section(name, title, per_class.sentences())
    sizes, table = size_charts(results, objects)
    bars = per_class.all_bars()
    charts = (*(() if bars is None else (bars,)), per_class.bars(), sizes)
    return Section(
        name,
        title,
        (_sentence(predictions, results), *per_class.sentences()),
        (per_class.table(), table),
        (*charts, *(mean_curve(results, iou, index) for iou, index in IOUS.items())),
    )


def count_sizes(objects: ObjectRows) -> tuple[int, int, int]:
    """The numbers of small, medium and large objects to find."""
    area = objects.area[~objects.ignored]
    small, medium = (int((area <= limit).sum()) for limit in LIMITS)
    return small, medium - small, len(area) - medium


def size_charts(results: Results, objects: ObjectRows) -> tuple[BarChart, Table]:
    """AP of the sizes that objects have, as bars and as a table."""
    counts = count_sizes(objects)
    present = [index for index, number in enumerate(counts) if number]
    values = {
        name: [_percent(result.stats[FIRST_SIZE + index]) for index in present]
        for name, result in results.items()
    }
    places = tuple(map(float, range(len(present))))
    rows: list[tuple[Cell, ...]] = [
        (SIZES[index], counts[index], *(numbers[place] for numbers in values.values()))
        for place, index in enumerate(present)
    ]
    chart = BarChart(
        "AP by size of the objects",
        "AP, %",
        tuple(f"{SIZES[index]} ({counts[index]:,})" for index in present),
        tuple(Series(name, places, tuple(numbers)) for name, numbers in values.items()),
    )
    columns = ("size", "objects", *(f"{name}, %" for name in values))
    title = "AP by size: small up to 32 x 32 pixels, medium up to 96 x 96"
    return chart, Table(columns, tuple(rows), title, digits=1)


def mean_curve(results: Results, iou: str, index: int) -> LineChart:
    """Precision over recall at one IoU, the mean over classes with objects."""
    recalls = tuple((100 * RECALLS).tolist())
    series = tuple(
        Series(name, recalls, tuple((100 * result.precision[index].nanmean(1)).tolist()))
        for name, result in results.items()
    )
    title = f"Precision over recall at IoU {iou}, mean over classes"
    return LineChart(title, "recall, %", "precision, %", series)


def _percent(share: Tensor) -> float | None:
    value = float(share)
    return None if math.isnan(value) else to_percent(value)


def _sentence(predictions: DetectionPredictions, results: Results) -> str:
    means = {name: percent(float(result.stats[0])) for name, result in results.items()}
    student, teacher = with_article(predictions.student), predictions.teacher
    images = count_of(len(predictions.images), "image")
    objects = count_of(int((~predictions.objects.ignored).sum()), "object")
    split = f" of {predictions.source}" if predictions.source else ""
    sentence = (
        f"AP of {student}, by COCO (mean over IoU 0.5 to 0.95), on {images}{split} with {objects}: "
        f"{with_control(predictions, means)}"
    )
    return f"{sentence}." if teacher is None else f"{sentence}; teacher {means[teacher.name]}."
