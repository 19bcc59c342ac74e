"""Masks of regions: cropped from those of objects to train on, and pasted into images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from stillhouse.batches import Objects
from stillhouse.errors import UserError
from stillhouse.functional.dtype import full_precision, upcast
from stillhouse.models.detectors.output import Suppression
from stillhouse.models.detectors.suppress import detect_in_regions
from stillhouse.models.detectors.two_stage import SampledMasks, SampledRegions, TwoStage
from stillhouse.types import Term

SURE = 0.5  # the probability from which a pixel belongs to an object
CHUNK = 32  # masks that are pasted at once, which bounds the memory of an image with many
NARROWEST = 1e-6  # the side of a box in pixels, in a quotient

CropMasks = Callable[[Tensor, Tensor, Tensor, int], Tensor]
PasteMasks = Callable[[Tensor, Tensor, tuple[int, int]], Tensor]


@torch.no_grad()
def crop_masks(
    masks: Tensor, boxes: Tensor, index: Tensor, side: int, aligned: bool = True
) -> Tensor:
    """The share of each cell of a box that a mask covers, by RoIAlign: -> (R, side, side).

    `masks` (M, H, W) bool; `boxes` (R, 4); `index` (R,) which mask belongs to each box. Outside of
    the masks there is nothing. Without `aligned`, boxes are half a pixel further right and down.
    """
    from torchvision.ops import roi_align

    given = torch.cat([index[:, None].to(boxes.dtype), boxes], 1)
    maps = masks[:, None].to(boxes.dtype)
    with full_precision(maps):
        shares: Tensor = roi_align(maps, given, side, 1.0, sampling_ratio=0, aligned=aligned)
    return shares[:, 0]


def paste_masks(shares: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks of boxes at the pixels of an image: (K, m, m), (K, 4) -> (K, *size).

    A pixel has the bilinear value at its centre between the centres of the mask's cells, with 0
    around the mask.
    """
    x1, y1, x2, y2 = boxes.to(shares.dtype).unbind(-1)
    with full_precision(shares):
        rows = cell_weights(y1, y2, shares.shape[-2], size[0])
        columns = cell_weights(x1, x2, shares.shape[-1], size[1])
        return rows @ shares @ columns.mT  # bilinear weights are products of both axes


def cell_weights(low: Tensor, high: Tensor, cells: int, pixels: int) -> Tensor:
    """The weight of each cell between two sides at each pixel: (K,), (K,) -> (K, pixels, cells)."""
    middle = torch.arange(pixels, device=low.device, dtype=low.dtype) + 0.5
    length = (high - low).clamp(min=NARROWEST)[:, None]
    place = (middle - low[:, None]) / length * cells - 0.5
    cell = torch.arange(cells, device=low.device, dtype=low.dtype)
    return (1 - (place[..., None] - cell).abs()).clamp(min=0)


def sample_masks(
    out: TwoStage,
    found: SampledRegions,
    index: Tensor,
    objects: Objects,
    stage: int,
    crop: CropMasks,
) -> SampledMasks:
    """The masks of the regions with an object; `index` (R,) is the object of each region."""
    if objects.masks is None and len(objects.labels):
        raise UserError(
            "the detector has a mask head, but the objects of the batch have no masks; take a data "
            "set of instances, or a detector without masks such as detector/faster_rcnn"
        )
    rows = found.positive.nonzero()[:, 0]
    regions = found.regions.rows(rows)
    logits = out.mask_logits(regions.boxes, regions.image, found.labels[rows], stage)
    targets = torch.zeros_like(upcast(logits.detach()))
    if objects.masks is not None and len(rows):
        side = logits.shape[-1]
        targets = crop(objects.masks, regions.boxes, index[rows], side).to(targets.dtype)
    return SampledMasks(rows, logits, targets)


def mask_term(masks: SampledMasks, weight: float) -> Term:
    """Binary cross-entropy of the map of the object's class, over all pixels of all masks."""
    with full_precision(masks.logits):
        z = upcast(masks.logits)
        total = F.binary_cross_entropy_with_logits(z, masks.targets.to(z.dtype), reduction="sum")
        return Term(total, z.new_tensor(z.numel()), weight)


@torch.no_grad()
def segment_regions(
    out: TwoStage, size: tuple[int, int], options: Suppression, stages: int, paste: PasteMasks
) -> Objects:
    """The detections of one image, with the mean over stages of the masks of their boxes.

    `size` is height and width before padding. A mask can be empty, where no pixel is sure enough.
    """
    sizes = torch.tensor([size], device=out.levels[0].device)
    found = detect_in_regions(out, sizes, options)
    shares = torch.stack(
        [
            upcast(out.mask_logits(found.boxes, found.image, found.labels, stage)).sigmoid()
            for stage in range(stages)
        ]
    ).mean(0)
    height, width = size
    masks = torch.zeros(len(shares), *out.size, dtype=torch.bool, device=shares.device)
    for first in range(0, len(shares), CHUNK):
        part = slice(first, first + CHUNK)
        masks[part, :height, :width] = paste(shares[part], found.boxes[part], size) >= SURE
    return replace(found, masks=masks)
