"""Images with their labels, and with the mask of each network beside them."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from stillhouse.batches import IGNORE
from stillhouse.explain.mask_drawing import draw_difference, draw_legend, draw_mask, labels_of
from stillhouse.explain.mask_predictions import ImageMasks, MaskPredictions
from stillhouse.explain.phrases import baseline_name, count_of, with_article
from stillhouse.explain.section import CaptionedImage, ImageGrid, Section
from stillhouse.explain.thumbnails import encode_png, resize_thumbnail

NAME, TITLE = "masks", "Masks"
IMAGES = 6  # rows of the sheet
PANEL = 320  # pixels: the longer side of an image
COLOURS = 128  # of a PNG, so that photographs take less space


def section(predictions: MaskPredictions) -> Section | None:
    """Image, truth, teacher, control and student, for the images where they differ most."""
    if predictions.again is None:
        return None
    keys, choice = choose_images(predictions)
    shown = [image for batch in predictions.again(keys) for image in batch.images()]
    panels = tuple(panel for image in shown for panel in _row(predictions, image))
    names = [one.name for one in predictions.main]
    other = baseline(predictions)
    sentences = [choice, "Pixels without a class are black in the truth."]
    if other:
        sentences.append(
            f"In the last column, pixels are green where only {with_article(predictions.student)} "
            f"is right, and red where only {baseline_name(predictions)} is."
        )
    masks = [mask for image in shown for mask in (image.truth, *image.found.values())]
    legend = draw_legend(predictions.classes, labels_of(masks))
    colours = CaptionedImage(encode_png(legend), "Colours of the classes", "Names of the classes.")
    columns = 2 + len(names) + bool(other)
    return Section(
        NAME,
        TITLE,
        tuple(sentences),
        charts=(ImageGrid("Classes", (colours,), 1), ImageGrid(TITLE, panels, columns)),
    )


def baseline(predictions: MaskPredictions) -> str:
    """The name of the network that the student is compared with; empty without one."""
    control = predictions.control
    return "" if control is None or control is predictions.student else control.name


def choose_images(predictions: MaskPredictions) -> tuple[Tensor, str]:
    """The keys of the images that are shown, and a sentence that says why these."""
    own, other = predictions.student, predictions.control
    images = count_of(own.count, "image")
    source = f" of {predictions.source}" if predictions.source else ""
    if not baseline(predictions) or other is None:
        order = own.wrong.argsort(descending=True, stable=True)
        reason = f"in which {with_article(own)} has most wrong pixels"
    else:
        order = (own.wrong - other.wrong).abs().argsort(descending=True, stable=True)
        reason = (
            f"in which the shares of wrong pixels of {with_article(own)} and {with_article(other)} "
            "differ most"
        )
    keys = own.keys[order[:IMAGES]]
    return keys, f"Those of {images}{source} {reason}; they are not typical."


def _row(predictions: MaskPredictions, image: ImageMasks) -> Iterator[CaptionedImage]:
    """The image, the truth, the networks and the difference."""
    png = encode_png(resize_thumbnail(image.pixels, PANEL), COLOURS)
    yield CaptionedImage(png, "image", "An image.")
    png = encode_png(draw_mask(image.pixels, image.truth, PANEL), COLOURS)
    yield CaptionedImage(png, "truth", f"The labels of an image: {_present(predictions, image)}.")
    for one in predictions.main:
        found = image.found[one.name]
        png = encode_png(draw_mask(image.pixels, found, PANEL), COLOURS)
        right = f"{100 * share_right(image.truth, found):.1f} % of the pixels right"
        yield CaptionedImage(png, f"{one.name}: {right}", f"The mask of {one.name}. {right}.")
    other = baseline(predictions)
    if other:
        own = image.found[predictions.student.name]
        drawn = draw_difference(image.pixels, image.truth, own, image.found[other], PANEL)
        caption = f"{predictions.student.name} and {other}"
        yield CaptionedImage(encode_png(drawn, COLOURS), caption, f"Where {caption} differ.")


def _present(predictions: MaskPredictions, image: ImageMasks) -> str:
    return ", ".join(predictions.classes[label] for label in labels_of([image.truth])) or "none"


def share_right(truth: Tensor, found: Tensor) -> float:
    """The share of the pixels with a class whose class is found: (H, W) each; 1 without any."""
    known = truth != IGNORE
    return float((truth == found)[known].double().mean()) if known.any() else 1.0
