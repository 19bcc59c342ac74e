"""Whether the class activation maps of student and teacher agree (LayerCAM: Jiang et al., 2021)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stillhouse.explain import layer_cam
from stillhouse.explain.guard import HINT
from stillhouse.explain.phrases import decimal, sentence_start, with_article, with_control
from stillhouse.explain.predictions import Outputs, Predictions
from stillhouse.explain.row_statistics import FiniteMean, evenly_spaced, finite_mean, row_pearson
from stillhouse.explain.section import CaptionedImage, Cell, ImageGrid, Section, Table
from stillhouse.explain.subset import Subset
from stillhouse.explain.thumbnails import FEW_COLOURS, encode_png, resize_thumbnail

if TYPE_CHECKING:
    from PIL.Image import Image

TITLE = "Class activation maps"
SHOWN = 6  # images
GRID = 56  # rows and columns to which all maps are resized
THRESHOLD = 0.5  # of the maximum: the activated area lies above
FAINT, STRONG = 0.25, 0.5  # opacity of the colours at 0, and what is added at 1


class MapSimilarity(NamedTuple):
    """Similarity of the maps of two networks, averaged over images."""

    correlation: FiniteMean  # Pearson's, over pixels
    overlap: FiniteMean  # intersection over union of the activated areas
    other: FiniteMean  # correlation with the map of another image


def section(predictions: Predictions) -> Section | None:
    """Class activation maps of some images, and their similarity to the teacher's."""
    subset = predictions.subset
    if subset is None:
        return None
    if not layer_cam.is_installed():
        sentence = "Class activation maps need torchcam; run `pip install 'stillhouse[explain]'`."
        return Section("activation", TITLE, (sentence,))
    with_maps = [one for one in predictions.main if one.maps is not None]
    without = tuple(_no_maps(one) for one in predictions.main if one.maps is None)
    if not with_maps:
        failed = any(one.maps_error for one in predictions.main)
        return Section("activation", TITLE, without, failed=failed)
    values = map_similarities(predictions)
    return Section(
        "activation",
        TITLE,
        (*_sentences(predictions, subset, values), *without),
        (_table(values),) if values else (),
        (_images(predictions, subset, with_maps),),
    )


def map_similarities(predictions: Predictions) -> dict[str, MapSimilarity]:
    """The similarity of each student's maps to the teacher's, where both have maps."""
    teacher = predictions.teacher
    if teacher is None or teacher.maps is None:
        return {}
    reference = normalise_maps(teacher.maps, (GRID, GRID))
    return {
        one.name: map_similarity(normalise_maps(one.maps, (GRID, GRID)), reference)
        for one in predictions.students
        if one.maps is not None
    }


def map_similarity(maps: Tensor, reference: Tensor) -> MapSimilarity:
    """Similarity to the map of the same image and to that of another one: (M, H, W) twice."""
    x, y = (each.double().flatten(1).numpy() for each in (maps, reference))
    area, reference_area = x > THRESHOLD, y > THRESHOLD
    union = (area | reference_area).sum(1)
    intersection = (area & reference_area).sum(1)
    overlap = np.where(union > 0, intersection / np.maximum(union, 1), np.nan)
    # Images that are close in the list may be of one class.
    other = row_pearson(x, np.roll(y, len(y) // 2, 0)) if len(x) > 1 else np.full(1, np.nan)
    return MapSimilarity(*map(finite_mean, (row_pearson(x, y), overlap, other)))


def normalise_maps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps resized bilinearly, each scaled to [0, 1]: (M, h, w) -> (M, H, W)."""
    resized = F.interpolate(maps[:, None].float(), size, mode="bilinear", align_corners=False)[:, 0]
    low, high = resized.amin((1, 2), keepdim=True), resized.amax((1, 2), keepdim=True)
    return (resized - low) / (high - low).where(high > low, 1)


def overlay_map(image: Image, heat: Tensor) -> Image:
    """A map in colours over the image in grey: (H, W) in [0, 1], of the size of the image."""
    from matplotlib import colormaps
    from PIL import Image

    grey = np.asarray(image.convert("L"), float)[..., None]
    value: NDArray[np.float64] = heat.double().numpy()
    colours = 255 * colormaps["inferno"](value)[..., :3]
    opacity = (FAINT + STRONG * value)[..., None]
    return Image.fromarray(((1 - opacity) * grey + opacity * colours).round().astype(np.uint8))


def shown_images(subset: Subset, count: int = SHOWN) -> Tensor:
    """Positions of some images of different classes, evenly spaced over the classes: -> (P,)."""
    present = subset.labels.unique()
    kept = present[torch.from_numpy(evenly_spaced(len(present), count))]
    return torch.stack([(subset.labels == label).nonzero()[0, 0] for label in kept])


def _images(predictions: Predictions, subset: Subset, networks: list[Outputs]) -> ImageGrid:
    """Each image beside its map of every network."""
    images: list[CaptionedImage] = []
    positions = shown_images(subset)
    for position, pixels in zip(positions.tolist(), subset.pixels(positions), strict=True):
        name = predictions.classes[int(subset.labels[position])]
        thumbnail = resize_thumbnail(pixels)
        png = encode_png(thumbnail, FEW_COLOURS)
        images.append(CaptionedImage(png, name, f"An image of class {name}."))
        for one in networks:
            assert one.maps is not None
            size = (thumbnail.height, thumbnail.width)
            (heat,) = normalise_maps(one.maps[position][None], size)
            alt = f"Activation map of {with_article(one)} for class {name}."
            png = encode_png(overlay_map(thumbnail, heat), FEW_COLOURS)
            images.append(CaptionedImage(png, one.name, alt))
    return ImageGrid("Activation maps of one class per image", tuple(images), 1 + len(networks))


def _table(values: dict[str, MapSimilarity]) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (
            name,
            each.correlation.value,
            each.other.value,
            each.overlap.value,
            each.correlation.skipped,
        )
        for name, each in values.items()
    ]
    columns = (
        "network",
        "correlation",
        "correlation with another image",
        "IoU of activated areas",
        "images left out",
    )
    return Table(columns, tuple(rows), "Similarity to the teacher's activation maps", digits=3)


def _no_maps(outputs: Outputs) -> str:
    network = with_article(outputs)
    if outputs.maps_error:
        return f"The maps of {network} could not be computed: {outputs.maps_error}; {HINT}."
    return (
        f"{sentence_start(network)} has no activation maps: its scores do not come from one last "
        "feature map of at least two pixels."
    )


def _sentences(
    predictions: Predictions, subset: Subset, values: dict[str, MapSimilarity]
) -> tuple[str, ...]:
    which = "rarest class" if predictions.multilabel else "class"
    method = f"LayerCAM of the last feature map, for the {which} of each image."
    if predictions.student.name not in values:
        return (method,)
    correlation, overlap, other = (
        with_control(predictions, {name: decimal(each[i].value) for name, each in values.items()})
        for i in range(3)
    )
    return (
        method,
        f"Mean correlation with the teacher's map over {len(subset.samples):,} images: "
        f"{correlation}; with the teacher's map of another image: {other}.",
        f"IoU of the areas above half of the maximum: {overlap}.",
    )
