"""Whether a student sees a class where its teacher sees it (LayerCAM: Jiang et al., 2021)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stillhouse.explain import layer_cam as camera

from stillhouse.explain import row_statistics as rows
from stillhouse.explain.predictions import Close, Hearing, Voice
from stillhouse.explain.thumbnails import FEW, coded, sized
from stillhouse.explain.row_statistics import evenly
from stillhouse.explain.section import Cell, Picture, Pictures, Section, Table
from stillhouse.explain.phrases import compared, decimal, start, the

if TYPE_CHECKING:
    from PIL.Image import Image

TITLE = "Where a class is seen"
SHOWN = 6  # images
GRID = 56  # places a side, on which maps of different sizes are compared
HALF = 0.5  # of the largest value: what lies above is where the class is seen
FAINT, STRONG = 0.25, 0.5  # how much of the image a colour hides where nothing is seen, and more


class Likeness(NamedTuple):
    """How alike the maps of two networks are, on average."""

    correlation: rows.Mean  # Pearson's, over places
    overlap: rows.Mean  # of what lies above a half: intersection over union
    other: rows.Mean  # the correlation with the map of another image


def section(hearing: Hearing) -> Section | None:
    """Class activation maps of some images, and how alike those of learners and teacher are."""
    close = hearing.close
    if close is None:
        return None
    if not camera.installed():
        said = "Class activation maps are made by torchcam, which is not there; install it with "
        return Section("activation", TITLE, (f"{said}`pip install 'stillhouse[explain]'`.",))
    seeing = [voice for voice in hearing.shown if voice.maps is not None]
    blind = tuple(_blind(voice) for voice in hearing.shown if voice.maps is None)
    if not seeing:
        return Section("activation", TITLE, blind)
    found = likenesses(hearing)
    return Section(
        "activation",
        TITLE,
        (*_said(hearing, close, found), *blind),
        (_table(found),) if found else (),
        (_pictures(hearing, close, seeing),),
    )


def likenesses(hearing: Hearing) -> dict[str, Likeness]:
    """The maps of each learner beside the teacher's, where both have some."""
    teacher = hearing.teacher
    if teacher is None or teacher.maps is None:
        return {}
    taught = normalised(teacher.maps, (GRID, GRID))
    return {
        voice.name: likeness(normalised(voice.maps, (GRID, GRID)), taught)
        for voice in hearing.learners
        if voice.maps is not None
    }


def likeness(own: Tensor, other: Tensor) -> Likeness:
    """How alike maps are, each with its own and with that of an image far off: (M, H, W) twice."""
    x, y = (maps.double().flatten(1).numpy() for maps in (own, other))
    here, there = x > HALF, y > HALF
    union = (here | there).sum(1)
    overlap = np.where(union > 0, (here & there).sum(1) / np.maximum(union, 1), np.nan)
    # Neighbours may be of one class.
    elsewhere = rows.pearson(x, np.roll(y, len(y) // 2, 0)) if len(x) > 1 else np.full(1, np.nan)
    return Likeness(*map(rows.average, (rows.pearson(x, y), overlap, elsewhere)))


def normalised(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps made larger bilinearly, each from 0 to 1: (M, h, w) -> (M, H, W)."""
    large = F.interpolate(maps[:, None].float(), size, mode="bilinear", align_corners=False)[:, 0]
    low, high = large.amin((1, 2), keepdim=True), large.amax((1, 2), keepdim=True)
    return (large - low) / (high - low).where(high > low, 1)


def overlay(picture: Image, heat: Tensor) -> Image:
    """A map in colours over an image in grey: (H, W) from 0 to 1, of the image's size."""
    from matplotlib import colormaps
    from PIL import Image

    grey = np.asarray(picture.convert("L"), float)[..., None]
    warmth: NDArray[np.float64] = heat.double().numpy()
    colours = 255 * colormaps["inferno"](warmth)[..., :3]
    share = (FAINT + STRONG * warmth)[..., None]
    return Image.fromarray(((1 - share) * grey + share * colours).round().astype(np.uint8))


def chosen(close: Close, count: int = SHOWN) -> Tensor:
    """Places of some samples whose classes differ, evenly of all classes: -> (P,)."""
    present = close.labels.unique()
    kept = present[torch.from_numpy(evenly(len(present), count))]
    return torch.stack([(close.labels == label).nonzero()[0, 0] for label in kept])


def _pictures(hearing: Hearing, close: Close, seeing: list[Voice]) -> Pictures:
    """An image, and what each network sees in it, side by side."""
    found: list[Picture] = []
    places = chosen(close)
    for place, image in zip(places.tolist(), close.seen(places), strict=True):
        name, picture = hearing.classes[int(close.labels[place])], sized(image)
        found.append(Picture(coded(picture, FEW), name, f"An image with {name}."))
        for voice in seeing:
            assert voice.maps is not None
            (heat,) = normalised(voice.maps[place][None], (picture.height, picture.width))
            alt = f"The same image, coloured where {the(voice)} sees {name}."
            found.append(Picture(coded(overlay(picture, heat), FEW), voice.name, alt))
    return Pictures("Where each network sees a class of an image", tuple(found), 1 + len(seeing))


def _table(found: dict[str, Likeness]) -> Table:
    lines: list[tuple[Cell, ...]] = [
        (
            name,
            each.correlation.value,
            each.other.value,
            each.overlap.value,
            each.correlation.skipped,
        )
        for name, each in found.items()
    ]
    columns = (
        "network",
        "correlation",
        "correlation with another image's",
        "overlap (IoU) above a half",
        "images left out",
    )
    return Table(columns, tuple(lines), "Maps beside the teacher's", digits=3)


def _blind(voice: Voice) -> str:
    return (
        f"{start(the(voice))} has no last map of an image that its scores come from, so that where "
        "it sees a class cannot be shown."
    )


def _said(hearing: Hearing, close: Close, found: dict[str, Likeness]) -> tuple[str, ...]:
    what = "the rarest of its classes" if hearing.several else "its class"
    method = f"LayerCAM shows where in an image the last map of a network speaks for {what}."
    if hearing.student.name not in found:
        return (method,)
    alike, other = (
        compared(hearing, {name: decimal(each[i].value) for name, each in found.items()})
        for i in (0, 2)
    )
    overlap = compared(hearing, {name: decimal(f.overlap.value) for name, f in found.items()})
    return (
        method,
        f"Over {len(close.samples):,} images, {the(hearing.student)}'s maps correlate with the "
        f"teacher's by {alike} on average, and with the teacher's of another image by {other}.",
        f"What lies above a half of the largest value overlaps by {overlap} (intersection over "
        "union).",
    )
