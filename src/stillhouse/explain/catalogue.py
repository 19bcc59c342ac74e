"""Every diagnosis by the name under which a task asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from stillhouse.explain import (
    activation,
    agreement,
    average_precision,
    calibration,
    classes,
    consistency,
    correlation,
    decisions,
    disagreement,
    embedding,
    logits,
    relations,
    retrieval,
)
from stillhouse.explain.guard import failed_section
from stillhouse.explain.predictions import Predictions
from stillhouse.explain.section import Section

MISSING = "missing"  # the section that names networks without outputs


class Diagnosis(NamedTuple):
    """A title, and a function that returns None where the predictions do not allow it."""

    title: str
    compute: Callable[[Predictions], Section | None]


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
    "embedding": Diagnosis(embedding.TITLE, embedding.section),
    "activation": Diagnosis(activation.TITLE, activation.section),
}


def run_diagnoses(names: Iterable[str], predictions: Predictions) -> tuple[Section, ...]:
    """The sections of the named diagnoses, in this order, after one that names missing networks.

    A diagnosis that raises an error becomes a section that says why. Without a student, or with
    logits of the student that are not finite, there is only the section of missing networks.
    """
    checked = drop_nonfinite(predictions)
    results: list[Section] = []
    if checked.missing:
        results.append(missing_section(checked.missing))
    lost = bool(predictions.outputs) and predictions.student.name in checked.missing
    if lost or not checked.students:
        return tuple(results)
    if len(checked.labels):
        missing = tuple(checked.missing)
        sections = (run_diagnosis(name, checked) for name in names)
        results += [replace(s, missing=missing) for s in sections if s is not None]
    return tuple(results)


def run_diagnosis(name: str, predictions: Predictions) -> Section | None:
    """One diagnosis, or a section that says why it failed."""
    if name not in DIAGNOSES:
        known = ", ".join(DIAGNOSES)
        sentence = f"The task asks for a diagnosis {name!r}, but there is none; known: {known}."
        return Section(name, name, (sentence,), failed=True)
    diagnosis = DIAGNOSES[name]
    try:
        return diagnosis.compute(predictions)
    except Exception as error:
        return failed_section(name, diagnosis.title, error)


def drop_nonfinite(predictions: Predictions) -> Predictions:
    """The predictions without networks that have logits which are not finite."""
    finite = tuple(o for o in predictions.outputs if bool(o.logits.isfinite().all()))
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
