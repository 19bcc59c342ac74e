"""Images with the objects, and with the detections of each network beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from stillhouse.explain.detections import DetectionPredictions
from stillhouse.explain.drawing import WHITE, Mark, class_marks, draw_marks
from stillhouse.explain.phrases import count_of, with_article
from stillhouse.explain.section import CaptionedImage, Cell, ImageGrid, Section, Table
from stillhouse.explain.thumbnails import encode_png
from stillhouse.explain.verdicts import Verdicts, best_score, judge
from stillhouse.tasks.meters.detection_rows import ObjectRows

TITLE = "Detections"
IMAGES = 6  # rows of the sheet
PANEL = 320  # pixels: the longer side of an image
COLOURS = 128  # of a PNG, so that photographs take less space
KEY = (
    "Solid boxes are correct: the right class, and an IoU of at least 0.5. Dashed boxes are wrong. "
    "Dashed white boxes are missed objects."
)


class Shown(NamedTuple):
    """The detections of a network that are shown."""

    verdicts: Verdicts
    score: float  # the least

    @property
    def wrong(self) -> Tensor:
        """The keys of the images of wrong detections: -> (W,)."""
        return self.verdicts.detections.key[self.verdicts.wrong]


Networks = Mapping[str, Shown]


def section(predictions: DetectionPredictions) -> Section:
    """Truth, teacher, control and student side by side, for the images where they differ most."""
    shown: dict[str, Shown] = {}
    for one in predictions.main:
        verdicts = judge(one.rows)
        score = best_score(verdicts)
        shown[one.name] = Shown(verdicts.above(score), score)
    keys, choice = choose_images(predictions, shown)
    panels = tuple(panel for key in keys for panel in _row(predictions, shown, key))
    scores = ", ".join(f"{name} {one.score:.2f}" for name, one in shown.items())
    images = count_of(len(predictions.images), "image")
    split = f" of {predictions.source}" if predictions.source else ""
    shown_from = (
        f"Shown are the detections from the score on at which F1 of a network is highest on the "
        f"{images}{split}: {scores}."
    )
    grid = ImageGrid("Objects and detections", panels, columns=1 + len(shown))
    return Section(
        "detections", TITLE, (choice, shown_from, KEY), (count_table(shown, images),), (grid,)
    )


def choose_images(predictions: DetectionPredictions, shown: Networks) -> tuple[list[int], str]:
    """The keys of the images that are shown, and a sentence that says why these.

    The first criterion is the number of objects that one network found and the other did not, plus
    the difference of the numbers of wrong detections; the second the number of the student's
    errors. Without another network it is the second alone.
    """
    student = predictions.student
    other = predictions.control or predictions.teacher
    own = shown[student.name]
    errors = _per_image(predictions, predictions.objects.key[own.verdicts.missed()])
    errors = errors + _per_image(predictions, own.wrong)
    images = count_of(len(predictions.images), "image")
    if other is None or other is student:
        order = errors.argsort(descending=True, stable=True)[:IMAGES]
        reason = f"Those of {images} where {with_article(student)} makes most errors"
    else:
        order = _by_difference(predictions, own, shown[other.name], errors)[:IMAGES]
        reason = (
            f"Those of {images} where {with_article(student)} and {with_article(other)} differ "
            "most, in the objects that only one of them finds and in the number of wrong detections"
        )
    return predictions.images[order].tolist(), f"{reason}; they are not typical."


def _by_difference(
    predictions: DetectionPredictions, own: Shown, other: Shown, errors: Tensor
) -> Tensor:
    """Images by what two networks differ in, then by errors, the most first: (I,) -> (I,)."""
    only_one = own.verdicts.missed() != other.verdicts.missed()
    difference = _per_image(predictions, predictions.objects.key[only_one])
    wrong = (_per_image(predictions, one.wrong) for one in (own, other))
    difference = difference + (next(wrong) - next(wrong)).abs()
    ranked = difference * (1 + errors.max()) + errors
    return ranked.argsort(descending=True, stable=True)


def _per_image(predictions: DetectionPredictions, keys: Tensor) -> Tensor:
    """How often each image of the predictions is named: (K,) -> (I,)."""
    places = torch.searchsorted(predictions.images, keys)
    return places.bincount(minlength=len(predictions.images))


def count_table(shown: Networks, images: str) -> Table:
    """What each network finds with the detections that are shown, over all images."""
    rows: list[tuple[Cell, ...]] = []
    for name, (verdicts, score) in shown.items():
        correct, wrong = int(verdicts.correct.sum()), int(verdicts.wrong.sum())
        missed = int(verdicts.missed().sum())
        f1 = 2 * correct / max(1, 2 * correct + wrong + missed)
        rows.append((name, score, correct, wrong, missed, 100 * f1))
    columns = ("network", "least score", "correct", "wrong", "missed", "F1, %")
    return Table(columns, tuple(rows), f"Detections that are shown, on {images}")


def _row(predictions: DetectionPredictions, shown: Networks, key: int) -> Iterator[CaptionedImage]:
    """The truth and each network for one image."""
    image, classes = predictions.image(key), predictions.classes
    marks, caption = truth_marks(predictions.objects, key, classes)
    yield _panel(image, marks, f"truth: {caption}")
    for name, one in shown.items():
        marks, caption = network_marks(one.verdicts, key, classes)
        yield _panel(image, marks, f"{name}: {caption}")


def _panel(image: Tensor, marks: list[Mark], caption: str) -> CaptionedImage:
    png = encode_png(draw_marks(image, marks, PANEL), COLOURS)
    texts = ", ".join(mark.text for mark in marks)
    return CaptionedImage(
        png, caption, f"An image with boxes. {caption}{': ' + texts if texts else ''}."
    )


def truth_marks(objects: ObjectRows, key: int, classes: tuple[str, ...]) -> tuple[list[Mark], str]:
    """The objects of an image, ignored ones dashed, and how many are to be found."""
    rows = (objects.key == key).nonzero().flatten()
    ignored = objects.ignored[rows].tolist()
    labels = objects.label[rows].tolist()
    texts = [
        classes[label] + (" (ignored)" if skip else "")
        for label, skip in zip(labels, ignored, strict=True)
    ]
    marks = class_marks(objects.box[rows].tolist(), labels, texts)
    marks = [mark._replace(dashed=skip) for mark, skip in zip(marks, ignored, strict=True)]
    return marks, count_of(len(ignored) - sum(ignored), "object")


def network_marks(verdicts: Verdicts, key: int, classes: tuple[str, ...]) -> tuple[list[Mark], str]:
    """The detections of an image, wrong ones dashed, the objects that were missed, and counts."""
    objects = verdicts.objects
    missed = (verdicts.missed() & (objects.key == key)).nonzero().flatten()
    marks = [
        Mark((box[0], box[1], box[2], box[3]), f"missed {classes[label]}", WHITE, True, below=True)
        for box, label in zip(
            objects.box[missed].tolist(), objects.label[missed].tolist(), strict=True
        )
    ]
    found = verdicts.detections
    here = (found.key == key) & ~verdicts.ignored
    counts = []
    for some, dashed in ((verdicts.wrong, True), (verdicts.correct, False)):
        rows = (here & some).nonzero().flatten().flip(0)  # the best are on top
        labels, scores = found.label[rows].tolist(), found.score[rows].tolist()
        texts = [f"{classes[c]} {score:.2f}" for c, score in zip(labels, scores, strict=True)]
        drawn = class_marks(found.box[rows].tolist(), labels, texts)
        marks += [mark._replace(dashed=dashed) for mark in drawn]
        counts.append(len(drawn))
    wrong, correct = counts
    return marks, f"{correct} of {correct + len(missed)} found, {wrong} wrong"
