"""SOLOv2 (Wang et al., 2020): classes and masks of the cells of grids, with dynamic kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from stillhouse.batches import Objects
from stillhouse.errors import UserError
from stillhouse.functional.dice import dice
from stillhouse.functional.dtype import upcast
from stillhouse.functional.focal import focal
from stillhouse.functional.mask_boxes import boxes_around
from stillhouse.models.detectors.cell_assignment import (
    CellAssignment,
    assign_cells,
    cell_labels,
    resize_object_masks,
)
from stillhouse.models.detectors.cell_masks import CellMasks
from stillhouse.models.detectors.matrix_suppression import keep_peaks, matrix_decay
from stillhouse.models.detectors.output import Suppression
from stillhouse.models.detectors.solov2_head import SOLOv2Head
from stillhouse.types import Term, Terms

GRIDS = (40, 36, 24, 16, 12)
RANGES = ((1.0, 96.0), (48.0, 192.0), (96.0, 384.0), (192.0, 768.0), (384.0, 2048.0))
CHUNK = 16  # masks of an image that are enlarged at once


@dataclass(frozen=True)
class SOLOv2:
    """A grid of cells for each level; focal loss of classes, and Dice loss of masks.

    `ranges` are the square roots of the areas of boxes, in pixels, that belong to each grid.
    `levels` are those of the neck that grids are read from, as `p2`; by default all. `iou` of
    `suppression` is not used, because matrix NMS has no limit of overlap.
    """

    suppression: Suppression = field(default=Suppression(threshold=0.1, candidates=500, most=100))
    grids: tuple[int, ...] = GRIDS  # cells per side
    ranges: tuple[tuple[float, float], ...] = RANGES
    levels: tuple[str, ...] | None = None
    region: float = 0.2  # sides of the centre region over those of the box
    mask_weight: float = 3.0
    mask_threshold: float = 0.5  # of the probability of a pixel
    sigma: float = 2.0  # of matrix NMS
    least: float = 0.05  # score after matrix NMS
    neck: ClassVar[dict[str, object]] = {"extra": 1, "extra_from": "pool"}

    def __post_init__(self) -> None:
        object.__setattr__(self, "grids", tuple(self.grids))
        object.__setattr__(self, "ranges", tuple((low, high) for low, high in self.ranges))
        if self.levels is not None:
            object.__setattr__(self, "levels", tuple(self.levels))
        if not self.grids or min(self.grids) < 1:
            raise UserError(f"`grids` of detector/solov2 must be positive, got {self.grids}")
        if len(self.grids) != len(self.ranges):
            raise UserError(
                f"detector/solov2 has {len(self.grids)} grids and {len(self.ranges)} ranges of "
                "object sizes; give `grids` and `ranges` the same length"
            )

    def head(
        self, before: int, classes: int, names: Sequence[str], mask_levels: int, **options: Any
    ) -> SOLOv2Head:
        """Grids of the neck's levels of these names, and mask features of the first ones."""
        chosen = tuple(names) if self.levels is None else self.levels
        for level in chosen:
            if level not in names:
                raise UserError(
                    f"detector/solov2 has no level {level!r}, only {', '.join(names)}; set `levels`"
                    " to some of them"
                )
        if len(chosen) != len(self.grids):
            raise UserError(
                f"detector/solov2 has {len(self.grids)} grids for the levels {', '.join(chosen)}; "
                "give `grids` one for each of them, or set `levels`"
            )
        read = [names.index(level) for level in chosen]
        return SOLOv2Head(before, classes, self.grids, read, mask_levels, **options)

    # ------------------------------------------------------------------------------------ training

    def assign(self, out: CellMasks, objects: Objects) -> CellAssignment:
        """By the size of an object and the centre of mass of its mask."""
        masks = read_masks(objects, out.size)
        index = assign_cells(objects, masks, out.grids, self.ranges, self.region)
        rows = (index >= 0).nonzero()
        small = resize_object_masks(masks, out.mask_size)
        return CellAssignment(index, cell_labels(index, objects), rows, small)

    def terms(self, out: CellMasks, assigned: CellAssignment) -> Terms:
        """`class` and `mask`, both over the number of cells with an object."""
        total = focal(out.scores, assigned.labels, assigned.counted)
        count = assigned.positives.sum().to(total.dtype)
        return {
            "class": Term(total, count, least=1.0),
            "mask": Term(dice_total(out, assigned), count, self.mask_weight, least=1.0),
        }

    # ---------------------------------------------------------------------------------- evaluation

    @torch.no_grad()
    def segment(
        self, out: CellMasks, index: int, size: tuple[int, int], options: Suppression
    ) -> Objects:
        """The best `candidates` of peaks of class scores, after matrix NMS of their masks.

        The score is that of the class times the mean probability of the mask's pixels. Masks with
        no more pixels than the stride of their grid are dropped.
        """
        scores, cells, labels = best_cells(out, index, options)
        soft = upcast(out.masks_of(index, cells)).sigmoid()
        hard = (soft > self.mask_threshold).to(soft.dtype)
        area = hard.sum((1, 2))
        scores = scores * (soft * hard).sum((1, 2)) / area.clamp(min=1)
        kept = (area > strides_of(cells, out)).nonzero()[:, 0]
        kept = kept[scores[kept].argsort(descending=True, stable=True)]
        scores = scores[kept] * matrix_decay(hard[kept], labels[kept], self.sigma)
        scores, order = scores.sort(descending=True, stable=True)
        best = kept[order[: options.most]]
        scores = scores[: options.most]
        best, scores = best[scores >= self.least], scores[scores >= self.least]
        masks = enlarge_masks(soft[best], out.size, self.mask_threshold)
        masks[:, size[0] :] = False
        masks[:, :, size[1] :] = False
        seen = masks.flatten(1).any(1)
        masks, own = masks[seen], labels[best[seen]]
        boxes = boxes_around(masks).to(scores.dtype)
        return Objects(boxes, own, torch.zeros_like(own), masks=masks, scores=scores[seen])


def read_masks(objects: Objects, size: tuple[int, int]) -> Tensor:
    """The masks of objects at the size of the images: -> (M, H, W) bool."""
    masks = objects.masks
    if masks is None and not len(objects.labels):
        return torch.zeros(0, *size, dtype=torch.bool, device=objects.labels.device)
    if masks is None:
        raise UserError(
            "detector/solov2 learns from masks, but the objects have none; choose a data set of "
            "instances (see `stillhouse datasets`), or another detector"
        )
    if tuple(masks.shape[-2:]) != tuple(size):
        raise UserError(
            "the masks of objects have {} x {} pixels, but the images {} x {}; give both the same "
            "size".format(*masks.shape[-2:], *size)
        )
    return masks


def dice_total(out: CellMasks, assigned: CellAssignment) -> Tensor:
    """The Dice loss of all cells with an object, image by image: -> ()."""
    counts = assigned.positives.tolist()
    total = upcast(out.kernels[:0]).sum() + upcast(out.features[:0]).sum()  # 0, with a gradient
    rows = zip(assigned.rows[:, 1].split(counts), assigned.index, strict=True)
    for number, (cells, index) in enumerate(rows):
        total = total + dice(out.masks_of(number, cells), assigned.masks[index[cells]]).sum()
    return total


def best_cells(out: CellMasks, index: int, options: Suppression) -> tuple[Tensor, Tensor, Tensor]:
    """The best pairs of cell and class of one image: -> (K,) score, (K,) cell, (K,) class."""
    peaks = keep_peaks(upcast(out.scores[index]).sigmoid(), out.grids).flatten()
    scores, place = peaks.topk(min(options.candidates, len(peaks)))
    scores, place = scores[scores > options.threshold], place[scores > options.threshold]
    return scores, place.div(out.classes, rounding_mode="floor"), place % out.classes


def strides_of(cells: Tensor, out: CellMasks) -> Tensor:
    """The stride of the map that each cell is read from: (R,) -> (R,) int64."""
    counts = torch.tensor(out.counts, device=cells.device)
    return torch.tensor(out.strides, device=cells.device).repeat_interleave(counts)[cells]


def enlarge_masks(soft: Tensor, size: tuple[int, int], threshold: float) -> Tensor:
    """Which pixels are more probable than a threshold: (K, h, w) in [0, 1] -> (K, *size) bool."""
    parts = [
        F.interpolate(part[None], size, mode="bilinear", align_corners=False)[0] > threshold
        for part in soft.split(CHUNK)
        if len(part)
    ]
    return torch.cat([soft.new_zeros(0, *size, dtype=torch.bool), *parts])
