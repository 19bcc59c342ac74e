"""Which cells of a feature map belong to objects, and how much each of them counts.

Boxes x1, y1, x2, y2 of several images are stored flat: box `i` belongs to image `image[i]`. A cell
of a map (N, H, W) is the unit square at its row and column.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stillhouse.functional.boxes import box_area, pairwise_iou


def focal_foreground(boxes: Tensor, image: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """The foreground weights of FGD (Yang Z. et al., 2022): (M, 4) in cells, (M,) -> (N, H, W).

    A box covers the cells from floor(x1) to ceil(x2), both included, and likewise in rows. Each of
    them gets one over their number, counted outside of the map, too, so that small objects are not
    outweighed. Of several boxes the largest weight counts; cells without a box get 0.
    """
    spans = torch.cat([boxes[:, :2].floor(), boxes[:, 2:].ceil()], 1)
    share = 1 / (spans[:, 2:] - spans[:, :2] + 1).clamp(min=1).prod(1)
    return cover(spans, share, image, shape)


def background_weights(foreground: Tensor) -> Tensor:
    """One over the number of cells without a foreground weight: (N, H, W) -> (N, H, W).

    0 in cells with one; all 0 for an image without background.
    """
    empty = (foreground == 0).to(foreground.dtype)
    return empty / empty.sum((1, 2), keepdim=True).clamp(min=1)


def object_cells(boxes: Tensor, image: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """1 in the cells of objects, else 0: (M, 4) in cells, (M,) -> (N, H, W).

    These are the cells from floor(x1) to floor(x2) - 1, at least one, and likewise in rows, as in
    the code of DeFeat (Guo J. et al., 2021).
    """
    first = boxes[:, :2].floor()
    last = torch.maximum(boxes[:, 2:].floor() - 1, first)
    return cover(torch.cat([first, last], 1), torch.ones_like(boxes[:, 0]), image, shape)


def cover(spans: Tensor, values: Tensor, image: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """The largest value of the boxes that cover a cell, 0 without any: -> (N, H, W).

    `spans` (M, 4) are the first column and row and the last ones of each box, `values` (M,) are not
    negative.
    """
    images, height, width = shape
    x1, y1, x2, y2 = spans[:, :, None].unbind(1)
    rows, columns = (torch.arange(n, device=spans.device) for n in (height, width))
    inside = ((rows >= y1) & (rows <= y2))[:, :, None] & ((columns >= x1) & (columns <= x2))[
        :, None
    ]
    painted = values[:, None, None].where(inside, 0)
    place = image[:, None, None].expand_as(painted)
    return values.new_zeros(images, height, width).scatter_reduce(0, place, painted, "amax")


def near_objects(
    boxes: Tensor, image: Tensor, images: int, priors: Tensor, share: float = 0.5
) -> Tensor:
    """The number of objects that each prior is near to: (M, 4), (M,), (P, 4) -> (N, P).

    A prior is near to an object if their IoU is more than `share` of the object's highest IoU with
    any prior (Wang T. et al., 2019).
    """
    overlap = pairwise_iou(boxes, priors)
    near = overlap > share * overlap.amax(1, keepdim=True)
    counts = overlap.new_zeros(images, len(priors))
    return counts.index_add(0, image, near.to(counts.dtype))


def level_of_scale(boxes: Tensor, finest: float, levels: int) -> Tensor:
    """The level of each box by its size, the finest is 0: (M, 4) in pixels -> (M,) int64.

    A box whose root of the area is `finest` is at the lower end of level 0, and each doubling leads
    one level on (Lin et al., 2017); smaller and larger ones belong to the nearest level.
    """
    side = box_area(boxes).sqrt() / finest
    return (side + 1e-6).log2().floor().clamp(0, levels - 1).long()
