"""Where in an image the losses of pixels are large."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stillhouse.batches import IGNORE
from stillhouse.explain.activation import overlay_map
from stillhouse.explain.map_strips import COLOURS
from stillhouse.explain.mask_predictions import MaskBatch, MaskPredictions
from stillhouse.explain.phrases import count_of
from stillhouse.explain.roles import TEACHER
from stillhouse.explain.section import CaptionedImage, Cell, ImageGrid, Section, Table
from stillhouse.explain.subset import thin_out
from stillhouse.explain.thumbnails import FEW_COLOURS, encode_png, resize_thumbnail
from stillhouse.functional.boundary_region import boundary_region
from stillhouse.functional.resize import resize_maps, resize_mask
from stillhouse.models.segmenters.output import read_segmentation
from stillhouse.objectives.activation import Softmax
from stillhouse.objectives.logit import LogitObjective
from stillhouse.objectives.presets import LogitPreset, tld
from stillhouse.objectives.rows import row_losses

NAME, TITLE = "pixel_losses", "Where the losses are"
SITE = "pixel"
IMAGES = 50  # that are measured, at most
SHOWN = 2
PANEL = 192  # pixels: the longer side of a map
NEAR = 1  # cells of the map from a boundary between classes

Losses = Mapping[str, LogitObjective]


class Measured(NamedTuple):
    """Sums of a loss over the pixels with a class."""

    total: float
    boundary: float  # of them near a boundary between classes
    wrong: float  # where the teacher is wrong


def section(predictions: MaskPredictions, method: Sequence[Any] = ()) -> Section | None:
    """The losses of the run's `method`, and others, of control and student; None without a teacher.

    Each is computed between the outputs of two trained networks, in eval mode, at the size of the
    student's map.
    """
    if predictions.teacher is None or predictions.again is None:
        return None
    losses, without = compared_losses(method)
    names = [one.name for one in predictions.main_students]
    sums: dict[tuple[str, str], list[Measured]] = {pair: [] for pair in product(losses, names)}
    even: list[Measured] = []
    pictures: list[CaptionedImage] = []
    for batch in predictions.again(thin_out(predictions.images, IMAGES)):
        parts = {name: regions(batch, name) for name in names}
        even += measure(torch.ones_like(parts[names[-1]][0], dtype=torch.double), *parts[names[-1]])
        for loss, name in product(losses, names):
            maps = loss_map(batch, name, losses[loss])
            sums[loss, name] += measure(maps, *parts[name])
            if len(even) <= len(batch.batch):  # the first batch
                pictures += _pictures(batch, maps, f"{name}: {loss}")
    return Section(
        NAME,
        TITLE,
        (*_sentences(predictions, len(even)), *without),
        (_table(sums, even, losses, names),),
        (ImageGrid("Losses, each from 0 to its 99th percentile", tuple(pictures), 2 * len(names)),),
    )


def compared_losses(method: Sequence[Any]) -> tuple[dict[str, LogitObjective], tuple[str, ...]]:
    """The losses of a run's method, then usual ones, by name; a sentence on those without map."""
    own: dict[str, LogitObjective] = {}
    without: list[str] = []
    for spec in method:
        own_name = spec.name
        if not isinstance(spec, LogitPreset):
            without.append(own_name)
            continue
        for (name, objective), place in product(spec.objectives().items(), spec.sites):
            label = own_name if name == own_name else f"{own_name}/{name}"
            if place != SITE or objective.relational:
                without.append(f"{label} at {place}")
            else:
                own[f"{label} (this run)"] = replace(objective, weight=1.0)
    usual = {
        "softmax KL, temperature 1": LogitObjective(),
        "softmax KL, temperature 4": LogitObjective(activation=Softmax(4.0)),
        "TLD, temperature 0.5": tld(0.5).objectives()["tld"],
    }
    sentence = f"Without a loss for each pixel, and so without a map: {', '.join(without)}."
    return {**own, **usual}, (sentence,) if without else ()


@torch.no_grad()
def loss_map(batch: MaskBatch, name: str, objective: LogitObjective) -> Tensor:
    """The loss of each pixel of a student's map, 0 for ignored ones: -> (N, h, w) on the CPU."""
    shape = read_segmentation(batch.traces[name].out).logits.shape
    rows = row_losses(objective, batch.sites(name)[SITE])
    return rows.view(shape[0], *shape[2:]).double().cpu()


@torch.no_grad()
def regions(batch: MaskBatch, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """The pixels of a student's map with a class, those near a boundary, and wrong ones.

    3 x (N, h, w) bool on the CPU; a pixel is wrong where the teacher does not predict its class.
    """
    logits = read_segmentation(batch.traces[name].out).logits
    size = (logits.shape[-2], logits.shape[-1])
    assert batch.batch.target is not None
    truth = resize_mask(batch.batch.target, size).long().cpu()
    found = resize_maps(read_segmentation(batch.traces[TEACHER].out).logits, size).argmax(1).cpu()
    known = truth != IGNORE
    near = torch.zeros_like(known)
    for label in truth[known].unique().tolist():
        near |= boundary_region(truth == label, NEAR)
    inside = torch.zeros_like(near)  # what lies outside of the image is no boundary
    inside[:, NEAR:-NEAR, NEAR:-NEAR] = True
    return known, near & known & inside, (found != truth) & known


def measure(maps: Tensor, known: Tensor, near: Tensor, wrong: Tensor) -> list[Measured]:
    """The sums of a loss over each image: (N, h, w) each."""
    return [
        Measured(*(float(values[part].sum()) for part in parts))
        for values, *parts in zip(maps, known, near, wrong, strict=True)
    ]


def _shares(measured: Sequence[Measured]) -> tuple[float | None, float | None]:
    """The shares near boundaries and where the teacher is wrong, over all images."""
    total = sum(one.total for one in measured)
    if not total > 0:
        return None, None
    near, wrong = (sum(values) / total for values in list(zip(*measured, strict=True))[1:])
    return near, wrong


def _table(
    sums: Mapping[tuple[str, str], Sequence[Measured]],
    even: Sequence[Measured],
    losses: Losses,
    names: Sequence[str],
) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for label in [*losses, "equal at all pixels"]:
        shares = [_shares(sums.get((label, name), even)) for name in names]
        cells = [share for pair in zip(*shares, strict=True) for share in pair]
        rows.append((label, *(None if one is None else 100 * one for one in cells)))
    columns = (
        "loss",
        *(f"{name}, % near boundaries" for name in names),
        *(f"{name}, % where the teacher is wrong" for name in names),
    )
    return Table(columns, tuple(rows), "Spread of the losses over the images", digits=1)


def _pictures(batch: MaskBatch, maps: Tensor, caption: str) -> list[CaptionedImage]:
    """The map of the first images over them."""
    found = []
    for index, image in zip(range(SHOWN), batch.images(), strict=False):
        picture = resize_thumbnail(image.pixels, PANEL)
        size = (picture.height, picture.width)
        values = maps[index]
        highest = values.flatten().quantile(0.99).clamp(min=1e-12)
        heat = resize_maps((values / highest).clamp(0, 1)[None, None], size)[0, 0]
        png = encode_png(overlay_map(picture.convert("RGB"), heat), FEW_COLOURS)
        found.append(CaptionedImage(png, caption, f"The loss of each pixel. {caption}."))
    return found


def _sentences(predictions: MaskPredictions, images: int) -> tuple[str, ...]:
    source = f" of {predictions.source}" if predictions.source else ""
    return (
        f"The loss between the predictions of a student and the teacher at each pixel with a "
        f"class, on {count_of(images, 'image')}{source}. Near a boundary is a pixel of the "
        "student's map with a neighbour of another class.",
        COLOURS.format(low="no loss", high="the 99th percentile of the image"),
    )
