"""Accuracy of each class, and the gain over the control."""

from __future__ import annotations

import numpy as np

from stillhouse.explain.per_class import PerClass
from stillhouse.explain.predictions import Outputs, Predictions
from stillhouse.explain.row_statistics import Rows
from stillhouse.explain.section import Section

TITLE = "Accuracy per class"


def section(predictions: Predictions) -> Section:
    """Accuracy of each class, sorted by the gain over the control if there is one."""
    values = {one.name: class_accuracies(predictions, one) for one in predictions.main}
    count = np.bincount(predictions.labels.numpy(), minlength=len(predictions.classes))
    per_class = PerClass(predictions, values, count, "accuracy")
    tables, charts = (per_class.table(),), (per_class.bars(),)
    return Section("classes", TITLE, per_class.sentences(), tables, charts)


def class_accuracies(predictions: Predictions, outputs: Outputs) -> Rows:
    """The share of correct images of each class, NaN for a class without images: -> (C,)."""
    labels, size = predictions.labels.numpy(), len(predictions.classes)
    hits = (outputs.logits.argmax(1).numpy() == labels).astype(float)
    count = np.bincount(labels, minlength=size)
    total = np.bincount(labels, weights=hits, minlength=size)
    values: Rows = np.divide(total, count, out=np.full(size, np.nan), where=count > 0)
    return values
