"""Which classes pixels are taken for."""

from __future__ import annotations

from stillhouse.explain.confusion import confusion_charts, confusion_tables, describe_confusions
from stillhouse.explain.mask_predictions import MaskPredictions
from stillhouse.explain.phrases import with_article
from stillhouse.explain.section import Section

NAME, TITLE = "mask_confusion", "Confusion of pixels"


def section(predictions: MaskPredictions) -> Section:
    """The confusion matrices in percent of the labels, and the largest confusions."""
    confusions = {one.name: one.confusion for one in predictions.main}
    student = predictions.student
    return Section(
        NAME,
        TITLE,
        (describe_confusions(with_article(student), "pixels"),),
        confusion_tables(confusions, student.name, predictions.classes),
        confusion_charts(confusions, predictions.classes, "pixels"),
    )
