"""Images with the masks of objects, and with the instances of each network beside them."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from stillhouse.explain.detection_sheet import (
    COLOURS,
    PANEL,
    Shown,
    choose_images,
    count_table,
)
from stillhouse.explain.drawing import WHITE, class_colour, draw_marks
from stillhouse.explain.instance_drawing import MaskMark, draw_instances
from stillhouse.explain.instance_predictions import InstancePredictions, decode_mask, masks_by_place
from stillhouse.explain.instance_verdicts import judge_masks
from stillhouse.explain.phrases import count_of
from stillhouse.explain.section import CaptionedImage, ImageGrid, Section
from stillhouse.explain.thumbnails import encode_png
from stillhouse.explain.verdicts import Verdicts, best_score
from stillhouse.tasks.meters.detection_rows import ObjectRows

NAME, TITLE = "instances", "Instances"
KEY = (
    "Filled masks are correct: the right class, and a mask IoU of at least 0.5; they have the "
    "colour of their object. Other outlines are wrong, and white ones are missed objects."
)

Places = dict[tuple[int, int], bytes]  # codes by the key of the image, and the place in it


def section(predictions: InstancePredictions) -> Section:
    """Image, truth, teacher, control and student, for the images where they differ most."""
    shown: dict[str, Shown] = {}
    for one in predictions.main:
        verdicts = judge_masks(predictions.found[one.name].masks)
        score = best_score(verdicts)
        shown[one.name] = Shown(verdicts.above(score), score)
    keys, choice = choose_images(predictions, shown)
    sheet = Sheet(predictions, shown)
    panels = tuple(panel for key in keys for panel in sheet.row(key))
    scores = ", ".join(f"{name} {one.score:.2f}" for name, one in shown.items())
    images = count_of(len(predictions.images), "image")
    split = f" of {predictions.source}" if predictions.source else ""
    shown_from = (
        f"Shown are the instances from the score on at which F1 of a network is highest on the "
        f"{images}{split}: {scores}."
    )
    grid = ImageGrid("Objects and instances", panels, columns=2 + len(shown))
    return Section(NAME, TITLE, (choice, shown_from, KEY), (count_table(shown, images),), (grid,))


class Sheet:
    """The panels of images."""

    def __init__(self, predictions: InstancePredictions, shown: dict[str, Shown]) -> None:
        self.predictions, self.shown = predictions, shown
        masks = predictions.found[predictions.student.name].masks
        self.sizes = dict(zip(masks.boxes.images.tolist(), masks.size.tolist(), strict=True))
        self.truth: Places = dict(masks_by_place(masks, objects=True))
        self.codes: dict[str, Places] = {
            name: dict(masks_by_place(predictions.found[name].masks)) for name in shown
        }

    def row(self, key: int) -> Iterator[CaptionedImage]:
        """The image, the truth and each network."""
        image = self.predictions.image(key)
        png = encode_png(draw_marks(image, (), PANEL), COLOURS)
        yield CaptionedImage(png, "image", "An image.")
        marks, caption = self.truth_marks(key)
        yield panel(image, marks, f"truth: {caption}")
        for name, one in self.shown.items():
            marks, caption = self.network_marks(name, one.verdicts, key)
            yield panel(image, marks, f"{name}: {caption}")

    def object_mark(self, objects: ObjectRows, row: int, number: int, missed: bool) -> MaskMark:
        """The mask of an object, filled in the truth unless it is ignored."""
        key, label = int(objects.key[row]), int(objects.label[row])
        mask = decode_mask(self.truth[key, int(objects.place[row])], self.sizes[key])
        name, ignored = self.predictions.classes[label], bool(objects.ignored[row])
        if missed:
            return MaskMark(mask, f"missed {name}", WHITE, filled=False, below=True)
        text = f"{name} (ignored)" if ignored else name
        return MaskMark(mask, text, class_colour(number), not ignored)

    def truth_marks(self, key: int) -> tuple[list[MaskMark], str]:
        """The objects of an image, and how many are to be found."""
        objects = self.predictions.objects
        rows = rows_of(objects.key, key)
        marks = [self.object_mark(objects, row, number, False) for number, row in enumerate(rows)]
        return marks, count_of(sum(mark.filled for mark in marks), "object")

    def network_marks(self, name: str, verdicts: Verdicts, key: int) -> tuple[list[MaskMark], str]:
        """The instances of an image, the best on top, the objects that were missed, and counts."""
        objects, found = verdicts.objects, verdicts.detections
        rows = rows_of(objects.key, key)
        number = {row: place for place, row in enumerate(rows)}
        unmatched = verdicts.missed()
        missed = [row for row in rows if bool(unmatched[row])]
        marks = [self.object_mark(objects, row, number[row], True) for row in missed]
        kept = [row for row in rows_of(found.key, key) if not bool(verdicts.ignored[row])]
        right = 0
        for place, row in enumerate(reversed(kept)):
            matched = int(verdicts.object[row])
            colour = class_colour(number.get(matched, len(rows) + place))
            code = self.codes[name][key, int(found.place[row])]
            label, score = int(found.label[row]), float(found.score[row])
            text = f"{self.predictions.classes[label]} {score:.2f}"
            marks.append(MaskMark(decode_mask(code, self.sizes[key]), text, colour, matched >= 0))
            right += matched >= 0
        return marks, f"{right} of {right + len(missed)} found, {len(kept) - right} wrong"


def panel(image: Tensor, marks: list[MaskMark], caption: str) -> CaptionedImage:
    """A drawn image with its caption."""
    png = encode_png(draw_instances(image, marks, PANEL), COLOURS)
    texts = ", ".join(mark.text for mark in marks)
    return CaptionedImage(
        png, caption, f"An image with masks. {caption}{': ' + texts if texts else ''}."
    )


def rows_of(keys: Tensor, key: int) -> list[int]:
    """The rows of one image."""
    rows: list[int] = (keys == key).nonzero()[:, 0].tolist()
    return rows
