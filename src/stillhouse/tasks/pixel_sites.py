"""The sites of networks for semantic segmentation: pixel by pixel, or channel by channel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from torch import Tensor

from stillhouse.batches import IGNORE
from stillhouse.functional.dtype import upcast
from stillhouse.functional.resize import resize_maps, resize_mask
from stillhouse.functional.site_maps import SiteMaps
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
    each. Losses at `pixel` and `aux` are means over the pixels with a class, and over all pixels of
    images without labels. Rows of `channel` are the maps of all images, N C of them, with h w
    logits each, ignored pixels included. Networks without auxiliary logits have no `aux`.
    """
    maps = {"pixel": pixel_maps(student.logits, teacher.logits, mask)}
    maps["every_pixel"] = replace(maps["pixel"], weight=None, mass=None)
    if student.auxiliary is not None and teacher.auxiliary is not None:
        maps["aux"] = pixel_maps(student.auxiliary, teacher.auxiliary, mask)
    makers: dict[str, Callable[[], Site]] = {name: one.whole for name, one in maps.items()}
    makers["channel"] = partial(channels, student.logits, teacher.logits)
    return Sites({name: makers[name] for name in SITES if name in makers}, maps)


def pixel_maps(student: Tensor, teacher: Tensor, mask: Tensor | None) -> SiteMaps:
    """All pixels: (N, C, h, w), (N, C, h', w'), (N, H, W) -> SiteMaps.

    Pixels that are ignored have weight 0, and the mass is the number of others.
    """
    number, _, height, width = student.shape
    # in full precision, because half cannot count the pixels of an image
    ones = upcast(student.detach()[:0]).new_ones(number * height * width)
    if mask is None:
        return SiteMaps(student, teacher, None, ones, ones.sum())
    target = resize_mask(mask, (height, width)).flatten().long()
    counted = target != IGNORE
    weight, target = counted.to(ones.dtype), target.where(counted, UNKNOWN)
    return SiteMaps(student, teacher, target, weight, weight.sum())


def channels(student: Tensor, teacher: Tensor) -> Site:
    """The map of each class: (N, C, h, w), (N, C, h', w') -> rows (N C, h w)."""
    teacher = resize_maps(teacher, (student.shape[-2], student.shape[-1]))
    return Site(student.flatten(2).flatten(0, 1), teacher.flatten(2).flatten(0, 1))
