"""How often the student predicts the classes that its teacher predicts, for multi-label images."""

from __future__ import annotations

from torch import Tensor

from stillhouse.explain.phrases import (
    decimal,
    join_names,
    percent,
    sentence_start,
    to_percent,
    with_article,
    with_control,
)
from stillhouse.explain.predictions import Outputs, Predictions
from stillhouse.explain.section import CaptionedImage, Cell, ImageGrid, Section, Table
from stillhouse.explain.thumbnails import FEW_COLOURS, IMAGES, encode_thumbnail
from stillhouse.functional.ranking import above_half

TITLE = "Agreement"


def section(predictions: Predictions) -> Section | None:
    """Agreement of the predicted classes, which network is correct otherwise, and examples."""
    teacher, control = predictions.teacher, predictions.control
    reference = teacher or control
    if reference is None or reference is predictions.student:
        return None
    images = most_different_images(predictions, predictions.student, reference)
    others = [one for one in (teacher, control) if one is not None]
    return Section(
        "disagreement",
        TITLE,
        _sentences(predictions, reference),
        tuple(_table(predictions, other) for other in others),
        () if images is None else (images,),
    )


def same_classes_rate(one: Outputs, other: Outputs) -> float:
    """The share of images for which both predict the same set of classes."""
    return float((differing_classes(one, other) == 0).double().mean())


def differing_classes(one: Outputs, other: Outputs) -> Tensor:
    """The number of classes that only one of two networks predicts: -> (N,)."""
    return (above_half(one.logits) != above_half(other.logits)).sum(1)


def correct_where_different(student: Outputs, other: Outputs, positives: Tensor) -> float | None:
    """How often the first network is correct where they differ; None if they never differ."""
    predicted = above_half(student.logits)
    different = predicted != above_half(other.logits)
    hits = (predicted == positives)[different]
    return float(hits.double().mean()) if len(hits) else None


def most_different_images(
    predictions: Predictions, student: Outputs, other: Outputs
) -> ImageGrid | None:
    """Up to 12 images with the most differing classes.

    Ties are ordered by the difference of the probabilities of these classes, the largest first.
    """
    count = differing_classes(student, other)
    gap = (student.logits.double().sigmoid() - other.logits.double().sigmoid()).abs()
    gap = (gap * (above_half(student.logits) != above_half(other.logits))).sum(1)
    # One more class outweighs any gap, which is below the number of classes.
    order = (count * (1 + gap.max()) + gap).argsort(descending=True, stable=True)
    order = order[count[order] > 0][:IMAGES]
    images = tuple(_image(predictions, index, student, other) for index in order.tolist())
    if not images:
        return None
    return ImageGrid(f"Largest disagreements of {student.name} and {other.name}", images)


def _image(predictions: Predictions, index: int, *networks: Outputs) -> CaptionedImage:
    rows = {"true": predictions.positives} | {o.name: above_half(o.logits) for o in networks}
    texts = [f"{name}: {_class_names(predictions, row[index])}" for name, row in rows.items()]
    png = encode_thumbnail(predictions.image(index), colours=FEW_COLOURS)
    return CaptionedImage(png, "; ".join(texts), f"An image. {'; '.join(texts)}.")


def _class_names(predictions: Predictions, chosen: Tensor) -> str:
    return join_names([predictions.classes[c] for c in chosen.nonzero().flatten().tolist()])


def _table(predictions: Predictions, other: Outputs) -> Table:
    columns = (
        "network",
        "same classes, %",
        "differing classes per image",
        "correct where they differ, %",
    )
    rows: list[tuple[Cell, ...]] = [
        (
            student.name,
            100 * same_classes_rate(student, other),
            float(differing_classes(student, other).double().mean()),
            to_percent(correct_where_different(student, other, predictions.positives)),
        )
        for student in predictions.students
        if student is not other
    ]
    return Table(columns, tuple(rows), f"Agreement with {with_article(other)}", digits=2)


def _sentences(predictions: Predictions, reference: Outputs) -> tuple[str, ...]:
    students = [one for one in predictions.students if one is not reference]
    rates = {o.name: percent(same_classes_rate(o, reference)) for o in students}
    counts = {
        o.name: decimal(float(differing_classes(o, reference).double().mean())) for o in students
    }
    student, other = with_article(predictions.student), with_article(reference)
    sentences = [
        f"{sentence_start(student)} predicts the same set of classes as {other} for "
        f"{with_control(predictions, rates, ' of images')}.",
        f"They differ in {with_control(predictions, counts, ' classes per image on average')}.",
    ]
    share = correct_where_different(predictions.student, reference, predictions.positives)
    if share is not None:
        sentences.append(f"Where they differ, {student} is correct in {percent(share)} of cases.")
    return tuple(sentences)
