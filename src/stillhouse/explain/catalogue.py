"""Every diagnosis by the name under which a task asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from stillhouse.batches import Batch
from stillhouse.explain import (
    activation,
    agreement,
    average_precision,
    box_precision,
    calibration,
    cell_scores,
    class_iou,
    classes,
    confusion,
    consistency,
    correlation,
    decisions,
    detection_errors,
    detection_sheet,
    disagreement,
    embedding,
    instance_precision,
    instance_sheet,
    logits,
    loss_maps,
    mask_confusion,
    mask_sheet,
    pixel_losses,
    relations,
    retrieval,
    score_errors,
)
from stillhouse.explain.collect import collect_predictions
from stillhouse.explain.compared import Compared
from stillhouse.explain.detections import collect_detections
from stillhouse.explain.guard import failed_section
from stillhouse.explain.instance_predictions import collect_instances
from stillhouse.explain.mask_predictions import collect_masks
from stillhouse.explain.section import Section
from stillhouse.explain.subset import SubsetLoader

MISSING = "missing"  # the section that names networks without outputs


class Collect(Protocol):
    """Collects predictions of one kind; see `collect_predictions`."""

    def __call__(
        self,
        networks: Mapping[str, nn.Module],
        task: Any,
        batches: Callable[[], Iterable[Batch[Any]]],
        classes: Iterable[str],
        image: Callable[[int], Tensor],
        limit: int,
        loader: SubsetLoader | None,
    ) -> Compared[Any]: ...


class Diagnosis(NamedTuple):
    """A title, and a function that returns None where the predictions do not allow it.

    It takes the predictions, and with `of_method` also the specs of the student's method.
    """

    title: str
    compute: Callable[..., Section | None]
    collect: Collect = collect_predictions  # the predictions that it reads
    of_method: bool = False


DIAGNOSES: Mapping[str, Diagnosis] = {
    "agreement": Diagnosis(agreement.TITLE, agreement.section),
    "disagreement": Diagnosis(disagreement.TITLE, disagreement.section),
    "decisions": Diagnosis(decisions.TITLE, decisions.section),
    "average_precision": Diagnosis(average_precision.TITLE, average_precision.section),
    "consistency": Diagnosis(consistency.TITLE, consistency.section),
    "correlation": Diagnosis(correlation.TITLE, correlation.section),
    "relations": Diagnosis(relations.TITLE, relations.section),
    "retrieval": Diagnosis(retrieval.TITLE, retrieval.section),
    "logits": Diagnosis(logits.TITLE, logits.section),
    "calibration": Diagnosis(calibration.TITLE, calibration.section),
    "classes": Diagnosis(classes.TITLE, classes.section),
    confusion.NAME: Diagnosis(confusion.TITLE, confusion.section),
    "embedding": Diagnosis(embedding.TITLE, embedding.section),
    "activation": Diagnosis(activation.TITLE, activation.section),
    "box_precision": Diagnosis(box_precision.TITLE, box_precision.section, collect_detections),
    "detection_errors": Diagnosis(
        detection_errors.TITLE, detection_errors.section, collect_detections
    ),
    "detections": Diagnosis(detection_sheet.TITLE, detection_sheet.section, collect_detections),
    "loss_maps": Diagnosis(loss_maps.TITLE, loss_maps.section, collect_detections, True),
    "masks": Diagnosis(mask_sheet.TITLE, mask_sheet.section, collect_masks),
    "class_iou": Diagnosis(class_iou.TITLE, class_iou.section, collect_masks),
    "mask_confusion": Diagnosis(mask_confusion.TITLE, mask_confusion.section, collect_masks),
    "pixel_losses": Diagnosis(pixel_losses.TITLE, pixel_losses.section, collect_masks, True),
    "instances": Diagnosis(instance_sheet.TITLE, instance_sheet.section, collect_instances),
    "mask_precision": Diagnosis(
        instance_precision.TITLE, instance_precision.section, collect_instances
    ),
    "cell_scores": Diagnosis(cell_scores.TITLE, cell_scores.section, collect_instances),
    "score_errors": Diagnosis(score_errors.TITLE, score_errors.section, collect_detections),
}


def collector(names: Iterable[str]) -> Collect:
    """What collects the predictions that the named diagnoses read, which are of one kind."""
    known = (DIAGNOSES[name].collect for name in names if name in DIAGNOSES)
    return next(known, collect_predictions)


def run_diagnoses(
    names: Iterable[str], predictions: Compared[Any], method: Sequence[Any] = ()
) -> tuple[Section, ...]:
    """The sections of the named diagnoses, in this order, after one that names missing networks.

    `method` are the specs of the student's method. A diagnosis that raises an error becomes a
    section that says why. Without a student, or with logits of the student that are not finite,
    there is only the section of missing networks.
    """
    checked = drop_nonfinite(predictions)
    results: list[Section] = []
    if checked.missing:
        results.append(missing_section(checked.missing))
    lost = bool(predictions.outputs) and predictions.student.name in checked.missing
    if lost or not checked.students:
        return tuple(results)
    if checked.student.count:
        missing = tuple(checked.missing)
        sections = (run_diagnosis(name, checked, method) for name in names)
        results += [replace(s, missing=missing) for s in sections if s is not None]
    return tuple(results)


def run_diagnosis(
    name: str, predictions: Compared[Any], method: Sequence[Any] = ()
) -> Section | None:
    """One diagnosis, or a section that says why it failed."""
    if name not in DIAGNOSES:
        known = ", ".join(DIAGNOSES)
        sentence = f"The task asks for a diagnosis {name!r}, but there is none; known: {known}."
        return Section(name, name, (sentence,), failed=True)
    diagnosis = DIAGNOSES[name]
    try:
        return diagnosis.compute(predictions, *([method] if diagnosis.of_method else []))
    except Exception as error:
        return failed_section(name, diagnosis.title, error)


def drop_nonfinite(predictions: Compared[Any]) -> Compared[Any]:
    """The predictions without networks that have logits which are not finite."""
    finite = tuple(one for one in predictions.outputs if one.finite)
    dropped = {
        outputs.name: f"Some logits of {outputs.name} are not finite."
        for outputs in predictions.outputs
        if outputs not in finite
    }
    return replace(predictions, outputs=finite, missing={**predictions.missing, **dropped})


def missing_section(missing: Mapping[str, str]) -> Section:
    """Which networks the diagnoses are without, and why."""
    names = ", ".join(missing)
    return Section(MISSING, "Missing networks", (f"Left out: {names}.", *missing.values()))
