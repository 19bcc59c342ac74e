"""The instances that several networks find in the same images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from stillhouse.batches import Batch, Objects, image_sizes
from stillhouse.errors import UserError
from stillhouse.explain.collect import collect_each, first_batches
from stillhouse.explain.detections import DetectionOutputs, DetectionPredictions
from stillhouse.explain.predictions import MAX_IMAGES
from stillhouse.explain.subset import SubsetLoader
from stillhouse.models.detectors.cell_masks import CellMasks
from stillhouse.models.dry_run import undisturbed
from stillhouse.tasks.base import run_network
from stillhouse.tasks.meters.mask_rows import (
    OrderedMasks,
    collect_masks,
    concatenate_masks,
    order_masks,
)
from stillhouse.types import Trace

KEPT = 3  # images whose scores of cells are kept
FIRES = 0.1  # the probability of a class from which on a cell is a candidate


class SegmentsObjects(Protocol):
    """A task whose networks find masks of objects."""

    def inputs(self, batch: Batch[Any], teacher: Trace | None = None) -> tuple[Any, ...]:
        """The arguments of a network."""
        ...

    def collect(self, trace: Trace) -> Tensor:
        """Logits, which are finite if those of all predictions are."""
        ...

    def segment(self, trace: Trace, batch: Batch[Any]) -> Iterable[Objects]:
        """The instances of each image in turn, with scores and masks."""
        ...


class CellScores(NamedTuple):
    """The highest class probability of each cell of one image."""

    key: int
    grids: tuple[Tensor, ...]  # (S, S) each, over the padded image
    share: tuple[float, float]  # height and width of the image over those with padding


@dataclass(frozen=True, eq=False)
class FoundInstances:
    """What one network finds."""

    outputs: DetectionOutputs
    masks: OrderedMasks
    cells: tuple[CellScores, ...]  # of the first images with objects; none for two stages
    firing: Tensor | None  # (G,) mean number of candidate cells of each grid in an image


@dataclass(frozen=True)
class InstancePredictions(DetectionPredictions):
    """Instances of images; boxes are those of `DetectionPredictions`."""

    found: Mapping[str, FoundInstances] = field(default_factory=dict, kw_only=True)  # by network


def collect_instances(
    networks: Mapping[str, nn.Module],
    task: SegmentsObjects,
    batches: Callable[[], Iterable[Batch[Any]]],
    classes: Iterable[str],
    image: Callable[[int], Tensor],
    limit: int = MAX_IMAGES,
    loader: SubsetLoader | None = None,
) -> InstancePredictions:
    """The instances of all networks for the first images of a split.

    The order of the networks is kept: teacher, control, students. A network that fails is named in
    `missing`; the last one raises its error.
    """
    found, missing = collect_each(
        networks, lambda name, network: instances_of(name, network, task, batches(), limit)
    )
    return InstancePredictions(
        tuple(one.outputs for one in found),
        tuple(classes),
        image,
        missing=missing,
        found={one.outputs.name: one for one in found},
    )


def instances_of(
    name: str,
    network: nn.Module,
    task: SegmentsObjects,
    batches: Iterable[Batch[Any]],
    limit: int = MAX_IMAGES,
) -> FoundInstances:
    """The instances of one network for at most `limit` images, in eval mode; it is not changed."""
    parts, finite = [], True
    cells: list[CellScores] = []
    fired: list[Tensor] = []
    with undisturbed(network):
        for batch in first_batches(batches, limit):
            if batch.target is None:
                raise UserError("the images have no objects annotated, which the diagnoses need")
            trace = run_network(task, network, batch)
            finite = finite and bool(task.collect(trace).isfinite().all())
            parts.append(collect_masks(task.segment(trace, batch), batch))
            if isinstance(trace.out, CellMasks):
                maps = cell_maps_of(trace.out)
                fired.append(torch.stack([(grid >= FIRES).sum((1, 2)) for grid in maps], 1))
                cells += first_cells(maps, trace.out, batch)[: KEPT - len(cells)]
    if not parts:
        raise UserError(f"the split has no images for {name}; choose a split with images")
    masks = order_masks(concatenate_masks(parts))
    firing = torch.cat(fired).double().mean(0) if fired else None
    outputs = DetectionOutputs(name, masks.boxes, finite, dense=False)
    return FoundInstances(outputs, masks, tuple(cells), firing)


def cell_maps_of(out: CellMasks) -> list[Tensor]:
    """The highest class probability of each cell, on the CPU: -> (N, S, S) for each grid."""
    highest = out.scores.float().sigmoid().amax(-1).cpu().split(out.counts, 1)
    return [part.unflatten(1, (grid, grid)) for part, grid in zip(highest, out.grids, strict=True)]


def first_cells(maps: list[Tensor], out: CellMasks, batch: Batch[Any]) -> list[CellScores]:
    """The scores of cells of the images with objects."""
    found = []
    for index in batch.target.image.unique().tolist():
        height, width = image_sizes(batch)[index].tolist()
        share = (height / out.size[0], width / out.size[1])
        grids = tuple(grid[index] for grid in maps)
        found.append(CellScores(int(batch.keys[index]), grids, share))
    return found


def decode_mask(code: bytes, size: Iterable[int]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """The mask of a code of `OrderedMasks`: -> (H, W) bool."""
    from faster_coco_eval.core import mask as library

    decoded: Any = library.decode({"size": list(size), "counts": code})
    return np.asarray(decoded, bool)


def masks_by_place(
    masks: OrderedMasks, objects: bool = False
) -> Iterator[tuple[tuple[int, int], bytes]]:
    """The code of each detection, or of each object, by the key of its image and its place."""
    rows = masks.boxes.objects if objects else masks.boxes.detections
    codes = masks.objects if objects else masks.detections
    yield from zip(zip(rows.key.tolist(), rows.place.tolist(), strict=True), codes, strict=True)
