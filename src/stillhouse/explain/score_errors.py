"""Where in an image the scores of student and teacher differ (figure 3 of BCKD)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from stillhouse.explain.dense_maps import DenseBatch, ImageCells, Level, cell_maps
from stillhouse.explain.detections import DetectionPredictions
from stillhouse.explain.map_strips import COLOURS, encode_strip, strides_text
from stillhouse.explain.phrases import count_of, decimal, join_names
from stillhouse.explain.section import CaptionedImage, Cell, ImageGrid, Section, Table

NAME, TITLE = "score_errors", "Errors of the scores"
SHOWN = 4  # images
HIGHEST = 0.4  # from here on, an error has the last colour

Errors = Mapping[str, list[list[float]]]  # by network and level, the mean error of each image


def section(predictions: DetectionPredictions) -> Section | None:
    """The score errors of control and student; None without a teacher."""
    if predictions.teacher is None or predictions.dense is None:
        return None
    names = [one.name for one in predictions.main_students]
    errors: dict[str, list[list[float]]] = {}
    pictures: list[CaptionedImage] = []
    levels: tuple[Level, ...] = ()
    left_out: dict[str, str] = {}
    images = 0
    for batch in predictions.dense(names):
        left_out |= batch.left_out
        levels = batch.levels
        maps = {name: error_maps(batch, name) for name in batch.students}
        for index, cells in enumerate(batch.images()):
            images += 1
            own = {name: [level[index] for level in of_levels] for name, of_levels in maps.items()}
            for name, of_levels in own.items():
                _add(errors.setdefault(name, [[] for _ in levels]), of_levels, cells)
            if len(pictures) < SHOWN * len(own) and len(cells.boxes):
                pictures += _pictures(levels, cells, own)
    refusals = tuple(f"Left out is {name}: {reason}." for name, reason in left_out.items())
    if not errors:
        return Section(NAME, TITLE, refusals)
    return Section(
        NAME,
        TITLE,
        (*_sentences(predictions, errors, images), *refusals),
        (error_table(errors, levels),),
        (ImageGrid(f"Score errors at {strides_text(levels)}", tuple(pictures), len(errors)),)
        if pictures
        else (),
    )


@torch.no_grad()
def error_maps(batch: DenseBatch, name: str) -> tuple[Tensor, ...]:
    """|sum_c sigmoid(z_s) - sum_c sigmoid(z_t)|, the mean over priors of a cell: (N, h, w) each."""
    sums = [
        one.out.scores.float().sigmoid().sum(-1) for one in (batch.students[name], batch.teacher)
    ]
    difference = (sums[0] - sums[1]).abs().cpu()
    maps = cell_maps(difference, batch.levels)
    return tuple(one / level.each for one, level in zip(maps, batch.levels, strict=True))


def error_table(errors: Errors, levels: Sequence[Level]) -> Table:
    """The mean error over the cells of an image, and over images, of each level and network."""
    rows: list[tuple[Cell, ...]] = [
        (f"stride {level.stride}", *(_mean(of_levels[place]) for of_levels in errors.values()))
        for place, level in enumerate(levels)
    ]
    rows.append(("mean of the levels", *map(mean_error, errors.values())))
    return Table(("level", *errors), tuple(rows), "Mean score error, not clipped", digits=4)


def mean_error(of_levels: Sequence[Sequence[float]]) -> float | None:
    """The mean over levels of their mean errors."""
    return _mean([mean for mean in map(_mean, of_levels) if mean is not None])


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _add(errors: list[list[float]], maps: Sequence[Tensor], cells: ImageCells) -> None:
    """Add the mean of each level over the cells of one image, without those of its padding."""
    for level, values, inside in zip(errors, maps, cells.inside, strict=True):
        if inside.any():
            level.append(float(values[inside].double().mean()))


def _pictures(
    levels: Sequence[Level], cells: ImageCells, maps: Mapping[str, Sequence[Tensor]]
) -> list[CaptionedImage]:
    return [
        CaptionedImage(
            encode_strip(cells, levels, [(one / HIGHEST).clamp(0, 1) for one in of_levels]),
            name,
            f"Maps of the score error of {name} at {strides_text(levels)}.",
        )
        for name, of_levels in maps.items()
    ]


def _sentences(predictions: DetectionPredictions, errors: Errors, images: int) -> tuple[str, ...]:
    source = f" of {predictions.source}" if predictions.source else ""
    means = [f"{name} {decimal(mean_error(one), 4)}" for name, one in errors.items()]
    return (
        "The error at a place is the difference between the sums over classes of the "
        "probabilities of student and teacher; the mean over the priors of a place. Its mean over "
        f"{count_of(images, 'image')}{source} and all levels: {join_names(means)}.",
        "The scale of all pictures is the same, and objects are outlined. "
        + COLOURS.format(low="0", high=f"{HIGHEST} or more"),
    )
