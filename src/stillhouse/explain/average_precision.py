"""Average precision of each class, and the gain over the control."""

from __future__ import annotations

import numpy as np

from stillhouse.explain.per_class import PerClass
from stillhouse.explain.phrases import (
    join_names,
    percent,
    with_article,
    with_control,
)
from stillhouse.explain.predictions import Outputs, Predictions
from stillhouse.explain.row_statistics import Rows, finite_mean
from stillhouse.explain.section import Section
from stillhouse.functional import ranking

TITLE = "Average precision per class"


def section(predictions: Predictions) -> Section:
    """Average precision of each class, sorted by the gain over the control if there is one."""
    values = {one.name: class_precisions(predictions, one) for one in predictions.main}
    count = predictions.positives.sum(0).numpy()
    per_class = PerClass(predictions, values, count, "average precision")
    charts = (per_class.all_bars(), per_class.bars() if per_class.order else None)
    return Section(
        "average_precision",
        TITLE,
        (
            *_sentences(predictions, per_class),
            *per_class.sentences(),
            *_missing(predictions, per_class),
        ),
        (per_class.table(),) if per_class.order else (),
        tuple(chart for chart in charts if chart is not None),
    )


def class_precisions(predictions: Predictions, outputs: Outputs) -> Rows:
    """Average precision of each class, NaN for a class without positives: -> (C,)."""
    values: Rows = ranking.average_precision(outputs.logits, predictions.positives).numpy()
    return values


def _sentences(predictions: Predictions, per_class: PerClass) -> tuple[str, ...]:
    means = {name: finite_mean(shares).value for name, shares in per_class.values.items()}
    if means[predictions.student.name] is None:
        return ()
    values = with_control(predictions, {name: percent(value) for name, value in means.items()})
    student = with_article(predictions.student)
    sentence = f"mAP of {student} on these images: {values}"
    if predictions.teacher is not None:
        sentence += f"; teacher {percent(means[predictions.teacher.name])}"
    return (f"{sentence}.",)


def _missing(predictions: Predictions, per_class: PerClass) -> tuple[str, ...]:
    without = [predictions.classes[int(c)] for c in np.flatnonzero(per_class.count == 0)]
    if not without or not per_class.order:
        return ()
    return (f"Left out, because no image has the class: {join_names(without)}.",)
