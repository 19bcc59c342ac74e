"""Average precision of masks: by class, by size of the objects, and as curves."""

from __future__ import annotations

from stillhouse.explain.box_precision import precision_section
from stillhouse.explain.instance_predictions import InstancePredictions
from stillhouse.explain.section import Section
from stillhouse.tasks.meters.mask_coco import mask_precision

NAME, TITLE = "mask_precision", "Average precision of masks"


def section(predictions: InstancePredictions) -> Section:
    """AP of teacher, control and student by the protocol of COCO."""
    size = len(predictions.classes)
    results = {
        one.name: mask_precision(predictions.found[one.name].masks, size)
        for one in predictions.main
    }
    return precision_section(NAME, TITLE, predictions, results)
