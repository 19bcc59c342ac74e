"""How often the student predicts the class that its teacher predicts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stillhouse.explain.phrases import (
    percent,
    sentence_start,
    to_percent,
    with_article,
    with_control,
)
from stillhouse.explain.predictions import Outputs, Predictions
from stillhouse.explain.section import CaptionedImage, Cell, ImageGrid, Section, Table
from stillhouse.explain.thumbnails import IMAGES, encode_thumbnail

TITLE = "Agreement"


class ErrorOverlap(NamedTuple):
    """Shares of all images, which add up to 1."""

    both: float  # both are correct
    student: float  # only the student is correct
    other: float  # only the other is correct
    same_error: float  # both predict the same wrong class
    different_errors: float


def section(predictions: Predictions) -> Section | None:
    """Top-1 agreement with the teacher and the control, and examples of disagreement."""
    teacher, control = predictions.teacher, predictions.control
    reference = teacher or control
    if reference is None or reference is predictions.student:
        return None
    images = disagreement_images(predictions, predictions.student, reference)
    tables = [_agreement_table(predictions)]
    if teacher is not None:
        tables.append(_overlap_table(predictions, teacher))
    return Section(
        "agreement",
        TITLE,
        _sentences(predictions, reference),
        tuple(tables),
        () if images is None else (images,),
    )


def agreement_rate(one: Outputs, other: Outputs) -> float:
    """The share of images for which both predict the same class."""
    return float((predicted_class(one) == predicted_class(other)).double().mean())


def predicted_class(outputs: Outputs) -> Tensor:
    """The class with the largest logit: -> (N,)."""
    return outputs.logits.argmax(1)


def error_overlap(student: Outputs, other: Outputs, labels: Tensor) -> ErrorOverlap:
    """How often both, one or none of two networks are correct."""
    first, second, true = (
        x.numpy() for x in (predicted_class(student), predicted_class(other), labels)
    )
    first_correct, second_correct = first == true, second == true
    neither = ~first_correct & ~second_correct
    cases = (
        first_correct & second_correct,
        first_correct & ~second_correct,
        ~first_correct & second_correct,
        neither & (first == second),
        neither & (first != second),
    )
    return ErrorOverlap(*(float(np.mean(case)) for case in cases))


def disagreement_images(
    predictions: Predictions, student: Outputs, other: Outputs
) -> ImageGrid | None:
    """Up to 12 images with different predictions, the most confident disagreements first."""
    confidence, classes = zip(
        *(o.logits.double().softmax(1).max(1) for o in (student, other)), strict=True
    )
    lower = torch.minimum(*confidence)
    different = (classes[0] != classes[1]).nonzero().flatten()
    order = different[lower[different].argsort(descending=True, stable=True)][:IMAGES]
    images = []
    for index in order.tolist():
        texts = [
            f"{o.name}: {predictions.classes[int(c[index])]} ({percent(float(p[index]))})"
            for o, c, p in zip((student, other), classes, confidence, strict=True)
        ]
        true = predictions.classes[int(predictions.labels[index])]
        alt = f"An image of class {true}; {'; '.join(texts)}."
        caption = f"true: {true}; {'; '.join(texts)}"
        images.append(CaptionedImage(encode_thumbnail(predictions.image(index)), caption, alt))
    if not images:
        return None
    title = f"Most confident disagreements of {student.name} and {other.name}"
    return ImageGrid(title, tuple(images))


def _agreement_table(predictions: Predictions) -> Table:
    others = [o for o in (predictions.teacher, predictions.control) if o is not None]
    rows: list[tuple[Cell, ...]] = []
    for student in predictions.students:
        shares = (None if other is student else agreement_rate(student, other) for other in others)
        rows.append((student.name, *map(to_percent, shares)))
    columns = ("network", *(f"with the {other.name}, %" for other in others))
    return Table(columns, tuple(rows), "Same predicted class", digits=1)


def _overlap_table(predictions: Predictions, teacher: Outputs) -> Table:
    columns = (
        "network",
        "both correct, %",
        "only this network correct, %",
        "only the teacher correct, %",
        "same error, %",
        "different errors, %",
    )
    rows: list[tuple[Cell, ...]] = [
        (student.name, *map(to_percent, error_overlap(student, teacher, predictions.labels)))
        for student in predictions.students
    ]
    return Table(columns, tuple(rows), "Overlap of errors with the teacher", digits=1)


def _sentences(predictions: Predictions, reference: Outputs) -> tuple[str, ...]:
    students = [one for one in predictions.students if one is not reference]
    rates = {one.name: percent(agreement_rate(one, reference)) for one in students}
    student, other = with_article(predictions.student), with_article(reference)
    overlap = error_overlap(predictions.student, reference, predictions.labels)
    rate = with_control(predictions, rates, " of images")
    return (
        f"{sentence_start(student)} agrees with {other} on {rate}.",
        f"Only {student} is correct on {percent(overlap.student)}, only {other} on "
        f"{percent(overlap.other)}; both make the same error on {percent(overlap.same_error)}.",
    )
