"""Pads images of different sizes to one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from stillhouse.batches import IGNORE, Objects
from stillhouse.data.targets import SampleTarget
from stillhouse.errors import UserError


def pad_images(images: Sequence[Tensor], multiple: int = 1) -> tuple[Tensor, Tensor]:
    """Images padded with 0 at the right and bottom to one size, and their sizes before padding.

    N x (C, h, w) -> (N, C, H, W), (N, 2); H and W are multiples of `multiple`.
    """
    sizes = torch.tensor([image.shape[-2:] for image in images])
    channels = {len(image) for image in images}
    if len(channels) > 1:
        raise UserError(
            f"images of one batch have {min(channels)} and {max(channels)} channels; convert all "
            "of them to RGB"
        )
    height, width = canvas_size(sizes, multiple)
    whole = images[0].new_zeros(len(images), len(images[0]), height, width)
    for canvas, image in zip(whole, images, strict=True):
        canvas[:, : image.shape[1], : image.shape[2]] = image
    return whole, sizes


def canvas_size(sizes: Tensor, multiple: int = 1) -> tuple[int, int]:
    """The smallest size that all images fit in, a multiple of `multiple`: (N, 2) -> H, W."""
    height, width = (-(-int(side) // multiple) * multiple for side in sizes.amax(0))
    return height, width


def pad_target(target: SampleTarget, height: int, width: int) -> SampleTarget:
    """A target with its masks padded like their image; boxes and labels do not change."""
    if isinstance(target, Objects):
        masks = target.masks
        return target if masks is None else replace(target, masks=_pad(masks, height, width, False))
    if isinstance(target, Tensor) and target.ndim == 2:
        return _pad(target, height, width, IGNORE)
    return target


def clear_padding(images: Tensor, sizes: Tensor) -> Tensor:
    """Set the padding of normalised images to 0, in place: (N, C, H, W), (N, 2) -> (N, C, H, W).

    `sizes` are best on the CPU, as they are read there.
    """
    for image, (height, width) in zip(images, sizes.tolist(), strict=True):
        image[:, height:] = 0
        image[:, :height, width:] = 0
    return images


def _pad(image: Tensor, height: int, width: int, value: float) -> Tensor:
    right, below = width - image.shape[-1], height - image.shape[-2]
    return F.pad(image, (0, right, 0, below), value=value)
