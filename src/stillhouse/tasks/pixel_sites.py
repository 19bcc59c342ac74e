"""The sites of networks for semantic segmentation: pixel by pixel, or channel by channel."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from stillhouse.batches import IGNORE
from stillhouse.functional.resize import resize_maps, resize_mask
from stillhouse.models.segmenters.output import Segmentation
from stillhouse.types import Site, Sites

UNKNOWN = -1  # the same in the targets of sites
SITES = (
    "pixel",  # the pixels with a class
    "every_pixel",  # also those without
    "aux",  # the pixels of the auxiliary logits with a class
    "channel",  # the map of each class
)


def pixel_sites(student: Segmentation, teacher: Segmentation, mask: Tensor | None) -> Sites:
    """The sites of two outputs for N images, with masks (N, H, W) or None without labels.

    The teacher's maps are resized to those of the student, masks by the nearest pixel. Rows of
    `pixel`, `every_pixel` and `aux` are the pixels of all images, N h w of them, with C logits
    each. Losses at `pixel` and `aux` are means over the pixels with a class, or over all pixels
    where images have no labels. Rows of `channel` are the maps of all images, N C of them, with h w
    logits each, ignored pixels included. Networks without auxiliary logits have no `aux`.
    """
    main = student.logits, teacher.logits
    makers: dict[str, Callable[[], Site]] = {
        "pixel": partial(pixels, *main, mask),
        "every_pixel": partial(every_pixel, *main, mask),
        "channel": partial(channels, *main),
    }
    if student.auxiliary is not None and teacher.auxiliary is not None:
        makers["aux"] = partial(pixels, student.auxiliary, teacher.auxiliary, mask)
    return Sites({name: makers[name] for name in SITES if name in makers})


def every_pixel(student: Tensor, teacher: Tensor, mask: Tensor | None) -> Site:
    """All pixels: (N, C, h, w), (N, C, h', w') -> rows (N h w, C)."""
    size = (student.shape[-2], student.shape[-1])
    target = None if mask is None else class_of_pixels(mask, size)
    return Site(rows_of_pixels(student), rows_of_pixels(resize_maps(teacher, size)), target)


def pixels(student: Tensor, teacher: Tensor, mask: Tensor | None) -> Site:
    """The same with weight 0 for pixels without a class, and with the number of others as mass."""
    site = every_pixel(student, teacher, mask)
    if site.target is None:
        weight = torch.ones_like(site.student[:, 0])
    else:
        weight = (site.target != UNKNOWN).to(site.student.dtype)
    return Site(site.student, site.teacher, site.target, weight, weight.sum())


def channels(student: Tensor, teacher: Tensor) -> Site:
    """The map of each class: (N, C, h, w), (N, C, h', w') -> rows (N C, h w)."""
    teacher = resize_maps(teacher, (student.shape[-2], student.shape[-1]))
    return Site(student.flatten(2).flatten(0, 1), teacher.flatten(2).flatten(0, 1))


def rows_of_pixels(maps: Tensor) -> Tensor:
    """(N, C, h, w) -> (N h w, C)."""
    return maps.movedim(1, -1).flatten(0, 2)


def class_of_pixels(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """The class of each pixel of a map, -1 for ignored ones: (N, H, W) -> (N h w,)."""
    found = resize_mask(mask, size).flatten().long()
    return found.masked_fill(found == IGNORE, UNKNOWN)
