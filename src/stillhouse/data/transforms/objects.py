"""Boxes and masks that move with their image, as torchvision's tv_tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from stillhouse.batches import Objects
from stillhouse.data.targets import SampleTarget

Move = Callable[..., Any]  # image, or (image, tv_tensors ...) -> the same, moved alike


def move(change: Move, image: Tensor, target: SampleTarget) -> tuple[Tensor, SampleTarget]:
    """An image and what lies in it through one geometric change: (C, H, W) -> (C, h, w)."""
    from torchvision import tv_tensors

    size = (image.shape[-2], image.shape[-1])
    if isinstance(target, Objects):
        boxes = tv_tensors.BoundingBoxes(target.boxes, format="XYXY", canvas_size=size)
        if target.masks is None:
            image, boxes = change(image, boxes)
            return image, keep_visible(target, boxes, None)
        image, boxes, masks = change(image, boxes, tv_tensors.Mask(target.masks))
        return image, keep_visible(target, boxes, masks.as_subclass(Tensor))
    if isinstance(target, Tensor):
        image, mask = change(image, tv_tensors.Mask(target[None]))
        return image, mask.as_subclass(Tensor)[0]
    return change(image), target


def keep_visible(target: Objects, boxes: Any, masks: Tensor | None) -> Objects:
    """The objects whose boxes still have an area inside the canvas, cut at its border."""
    height, width = boxes.canvas_size
    cut = boxes.as_subclass(Tensor).clone()
    cut[:, 0::2] = cut[:, 0::2].clamp(0, width)
    cut[:, 1::2] = cut[:, 1::2].clamp(0, height)
    visible = ((cut[:, 2] > cut[:, 0]) & (cut[:, 3] > cut[:, 1])).nonzero().flatten()
    return replace(target, boxes=cut, masks=masks).objects(visible)
