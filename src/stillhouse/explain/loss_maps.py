"""Where in an image the losses of a detector are large (figures 3 to 5 of TLD)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from stillhouse.explain.dense_maps import DenseBatch, ImageCells, Level, cell_maps
from stillhouse.explain.detections import DetectionPredictions
from stillhouse.explain.map_strips import COLOURS, encode_strip, strides_text
from stillhouse.explain.phrases import count_of, decimal, percent
from stillhouse.explain.section import CaptionedImage, Cell, ImageGrid, Section, Table
from stillhouse.objectives.activation import Softmax
from stillhouse.objectives.logit import LogitObjective
from stillhouse.objectives.presets import LogitPreset, bcd, tld
from stillhouse.objectives.published import PriorLoss, Published
from stillhouse.objectives.reduction import Mean
from stillhouse.objectives.rows import row_losses
from stillhouse.types import Site

NAME, TITLE = "loss_maps", "Where the losses are"
SHOWN = 2  # images
SITE = "class"
MEANING = (
    "Entropy is that of the map, scaled to [0, 1] at each level, over its highest possible value: "
    "1 for a loss that is equal everywhere, 0 for one that is at a single place."
)


class Loss(NamedTuple):
    """An objective and the site where it compares class scores."""

    objective: LogitObjective
    site: str = SITE

    def of_priors(self, sites: Mapping[str, Site]) -> Tensor:
        """The loss of each prior: -> (N P,)."""
        return row_losses(self.objective, sites[self.site])


class OtherLoss(NamedTuple):
    """A loss of priors that is no objective of class scores, such as one of boxes."""

    of_priors: PriorLoss


class Spread(NamedTuple):
    """How one loss is spread over one image."""

    share: float  # of the loss in the boxes of objects; NaN without objects or without a loss
    entropy: float  # of the map, in [0, 1], the mean over levels; NaN without a level of two cells


Losses = Mapping[str, Loss | OtherLoss]
Spreads = Mapping[tuple[str, str], list[Spread]]  # by loss and network, one for each image


def section(predictions: DetectionPredictions, method: Sequence[Any] = ()) -> Section | None:
    """The losses of the run's `method`, and others, of control and student; None without a teacher.

    Each is computed between the outputs of two trained networks, in eval mode.
    """
    if predictions.teacher is None or predictions.dense is None:
        return None
    losses, without = compared_losses(method)
    names = [one.name for one in predictions.main_students]
    spreads: dict[tuple[str, str], list[Spread]] = {
        (loss, name): [] for loss in losses for name in names
    }
    even: list[Spread] = []
    grids: list[ImageGrid] = []
    left_out: dict[str, str] = {}
    for batch in predictions.dense(names):
        left_out |= batch.left_out
        maps = loss_maps(batch, losses)
        for index, cells in enumerate(batch.images()):
            own = {key: [level[index] for level in levels] for key, levels in maps.items()}
            for key, levels in own.items():
                spreads[key].append(measure_spread(levels, cells))
            even.append(measure_spread([torch.ones(one.shape) for one in cells.inside], cells))
            if own and len(grids) < SHOWN and len(cells.boxes):
                grids.append(_grid(len(grids), batch.levels, cells, own, losses))
    names = [name for name in names if name not in left_out]
    if not names:
        return Section(NAME, TITLE, tuple(_refusals(left_out)))
    return Section(
        NAME,
        TITLE,
        (*_sentences(predictions, spreads, even, losses, names), *without, *_refusals(left_out)),
        (spread_table(spreads, even, losses, names),),
        tuple(grids),
    )


# --------------------------------------------------------------------------------------- the losses


def compared_losses(
    method: Sequence[Any],
) -> tuple[dict[str, Loss | OtherLoss], tuple[str, ...]]:
    """The losses of a run's method, then the usual ones, by name; a sentence on those without map.

    A loss of the method that is one of the usual ones, up to its weight, has the name of that.
    """
    own, without = own_losses(method)
    usual: dict[str, Loss | OtherLoss] = {
        name: Loss(objective) for name, objective in usual_objectives().items()
    }
    known = {_shape(loss): name for name, loss in usual.items()}
    first = {known.get(_shape(loss), name): loss for name, loss in own.items()}
    others = {name: loss for name, loss in usual.items() if name not in first}
    return {**{f"{name} (this run)": loss for name, loss in first.items()}, **others}, without


def usual_objectives() -> dict[str, LogitObjective]:
    """The losses that every run is shown with, by name."""
    return {
        "softmax KL, temperature 1": LogitObjective(),
        "softmax KL, temperature 4": LogitObjective(activation=Softmax(4.0)),
        "TLD, temperature 0.5": tld(0.5).objectives()["tld"],
        "BCE (TLD, temperature 1)": tld(1.0).objectives()["tld"],
        "TLD, temperature 2": tld(2.0).objectives()["tld"],
        "TLD, temperature 4": tld(4.0).objectives()["tld"],
        "BCD": bcd().objectives()["bcd"],
    }


def own_losses(method: Sequence[Any]) -> tuple[dict[str, Loss | OtherLoss], tuple[str, ...]]:
    """The losses of priors in the specs of a method, by name, and which have no map."""
    found: dict[str, Loss | OtherLoss] = {}
    without: list[str] = []
    for spec in method:
        own_name = spec.name
        if not isinstance(spec, LogitPreset):
            losses = spec.prior_losses() if isinstance(spec, Published) else {}
            for name, loss in losses.items():
                found[own_name if name == own_name else f"{own_name}/{name}"] = OtherLoss(loss)
            without += [] if losses else [own_name]
            continue
        for (name, objective), place in product(spec.objectives().items(), spec.sites):
            label = own_name if name == own_name else f"{own_name}/{name}"
            label = label if place == SITE else f"{label} at {place}"
            if objective.relational or place.split("_")[0] != SITE:
                without.append(label)
            else:
                found[label] = Loss(objective, place)
    if not without:
        return found, ()
    names = ", ".join(without)
    return found, (f"Without a loss for each place, and so without a map: {names}.",)


def _shape(loss: Loss | OtherLoss) -> Loss | OtherLoss:
    """The loss without what only scales it."""
    if isinstance(loss, OtherLoss):
        return loss
    return loss._replace(objective=replace(loss.objective, weight=1.0, reduction=Mean()))


@torch.no_grad()
def loss_maps(batch: DenseBatch, losses: Losses) -> dict[tuple[str, str], tuple[Tensor, ...]]:
    """The loss of each cell by loss and network, on the CPU: (N, h, w) for each level.

    It is summed over the classes and priors of a cell, and is 0 for priors that do not count.
    """
    maps: dict[tuple[str, str], tuple[Tensor, ...]] = {}
    for name in batch.students:
        sites = batch.sites(name)
        for label, loss in losses.items():
            rows = loss.of_priors(sites)
            maps[label, name] = cell_maps(rows.float().cpu(), batch.levels)
    return maps


# -------------------------------------------------------------------------------------- the numbers


def measure_spread(maps: Sequence[Tensor], cells: ImageCells) -> Spread:
    """How a loss is spread over one image: (h, w) for each level. Cells of padding do not count."""
    inside = [values[kept].double() for values, kept in zip(maps, cells.inside, strict=True)]
    total = sum(float(values.sum()) for values in inside)
    within = sum(
        float(values[kept & boxed].sum(dtype=torch.double))
        for values, kept, boxed in zip(maps, cells.inside, cells.on_object, strict=True)
    )
    share = within / total if len(cells.boxes) and total > 0 else math.nan
    entropies = [value for value in map(entropy, inside) if not math.isnan(value)]
    return Spread(share, sum(entropies) / len(entropies) if entropies else math.nan)


def entropy(values: Tensor) -> float:
    """Entropy of values that are scaled to [0, 1], over its maximum: (M,) -> in [0, 1].

    It is 1 for equal values, and NaN for a single one.
    """
    if len(values) < 2:
        return math.nan
    scaled = values - values.min()
    if not scaled.max() > 0:
        return 1.0
    probability = scaled / scaled.sum()
    return float(-torch.xlogy(probability, probability).sum() / math.log(len(values)))


def mean_spread(spreads: Sequence[Spread]) -> tuple[float | None, float | None]:
    """The means of share and entropy over the images that have them."""
    shares, entropies = (np.array(column, float) for column in zip(*spreads, strict=True))
    return _mean(shares), _mean(entropies)


def _mean(values: Any) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def spread_table(
    spreads: Spreads, even: Sequence[Spread], losses: Losses, names: Sequence[str]
) -> Table:
    """Share and entropy of each loss and network, and of a loss that is equal everywhere."""
    share, spread = mean_spread(even)
    rows: list[tuple[Cell, ...]] = []
    for label in losses:
        means = [mean_spread(spreads[label, name]) for name in names]
        inside = (None if one[0] is None else 100 * one[0] for one in means)
        rows.append((label, *inside, *(one[1] for one in means)))
    equal = None if share is None else 100 * share
    rows.append(("equal at all places", *[equal] * len(names), *[spread] * len(names)))
    columns = (
        "loss",
        *(f"{name}, % in boxes" for name in names),
        *(f"{name}, entropy" for name in names),
    )
    return Table(columns, tuple(rows), "Spread of the losses over an image", digits=2)


# ---------------------------------------------------------------------------------------- the page


def _grid(
    number: int,
    levels: Sequence[Level],
    cells: ImageCells,
    maps: Mapping[tuple[str, str], Sequence[Tensor]],
    losses: Losses,
) -> ImageGrid:
    """The maps of one image: a row for each loss, a column for each network."""
    names = list(dict.fromkeys(name for _, name in maps))
    pictures = []
    for label in losses:
        for name in names:
            scaled = [
                scale_map(values, inside)
                for values, inside in zip(maps[label, name], cells.inside, strict=True)
            ]
            alt = f"Maps of the loss {label} of {name} at {strides_text(levels)}."
            caption = f"{name}: {label}"
            pictures.append(CaptionedImage(encode_strip(cells, levels, scaled), caption, alt))
    title = f"Image {number + 1}: loss at {strides_text(levels)}, each from 0 to 1"
    return ImageGrid(title, tuple(pictures), len(names))


def scale_map(values: Tensor, inside: Tensor) -> Tensor:
    """A map scaled to [0, 1] by its smallest and largest value in the image: (h, w), (h, w)."""
    if not inside.any():
        return torch.zeros_like(values)
    low, high = values[inside].aminmax()
    return ((values - low) / (high - low).where(high > low, 1)).clamp(0, 1)


def _sentences(
    predictions: DetectionPredictions,
    spreads: Spreads,
    even: Sequence[Spread],
    losses: Losses,
    names: Sequence[str],
) -> Iterator[str]:
    share, _ = mean_spread(even)
    with_objects = sum(not math.isnan(one.share) for one in even)
    source = f" of {predictions.source}" if predictions.source else ""
    yield (
        f"The loss between the predictions of a student and the teacher at each place, on "
        f"{count_of(len(even), 'image')}{source}. In the boxes of objects "
        f"({count_of(with_objects, 'image')} with any) lie {percent(share)} of the places."
    )
    first = next(iter(losses))
    parts = []
    for name in names:
        inside, spread = mean_spread(spreads[first, name])
        parts.append(f"{name} {percent(inside)}, entropy {decimal(spread)}")
    yield f"Loss in the boxes of objects, {first}: {'; '.join(parts)}."
    yield MEANING
    yield (
        "In the pictures each level is scaled by its own smallest and largest loss, and objects "
        "are outlined. " + COLOURS.format(low="the smallest", high="the largest")
    )


def _refusals(left_out: Mapping[str, str]) -> list[str]:
    return [f"Left out is {name}: {reason}." for name, reason in left_out.items()]
