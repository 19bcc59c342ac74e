"""Applies geometric transforms to boxes and masks, as torchvision's tv_tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from stillhouse.batches import Objects
from stillhouse.data.targets import SampleTarget, resize_mask

Move = Callable[..., Any]  # image, or (image, tv_tensors ...) -> the same, transformed together


def move(change: Move, image: Tensor, target: SampleTarget) -> tuple[Tensor, SampleTarget]:
    """Apply one geometric function to an image and its target: (C, H, W) -> (C, h, w)."""
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


def resize_parts(parts: Sequence[Any], height: int, width: int, interpolation: str) -> Any:
    """An image, with its boxes and masks, at another size; alone if there are no others.

    A pixel of a mask is that of the nearest centre. torchvision's `nearest`, which is for corners,
    would move masks against the image by up to half a pixel of the larger of the two.
    """
    from torchvision import tv_tensors
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as F

    mode = InterpolationMode(interpolation)
    resized = [
        tv_tensors.wrap(resize_mask(part.as_subclass(Tensor), height, width), like=part)
        if isinstance(part, tv_tensors.Mask)
        else F.resize(part, [height, width], mode, antialias=True)
        for part in parts
    ]
    return resized if len(parts) > 1 else resized[0]


def cut(top: int, left: int, height: int, width: int) -> Move:
    """A crop to a window inside of the image, as a function of an image, its boxes and masks.

    Boxes whose centre is outside become empty, so that `move` drops their objects.
    """
    from torchvision import tv_tensors
    from torchvision.transforms.v2 import functional as F

    def change(image: Tensor, *others: Any) -> Any:
        cropped = [F.crop(part, top, left, height, width) for part in (image, *others)]
        for before, after in zip(others, cropped[1:], strict=True):
            if isinstance(before, tv_tensors.BoundingBoxes):
                corner = before.new_tensor([left, top])
                centre = box_centres(before.as_subclass(Tensor)) - corner
                inside = (centre >= 0) & (centre < before.new_tensor([width, height]))
                after.masked_fill_(~inside.all(1)[:, None], 0)
        return cropped if others else cropped[0]

    return change


def box_centres(boxes: Tensor) -> Tensor:
    """The centres of boxes: (M, 4) -> (M, 2) as x, y."""
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def keep_visible(target: Objects, boxes: Any, masks: Tensor | None) -> Objects:
    """The objects with boxes clipped to the image, without those whose box or mask is empty."""
    height, width = boxes.canvas_size
    clipped = boxes.as_subclass(Tensor).clone()
    clipped[:, 0::2] = clipped[:, 0::2].clamp(0, width)
    clipped[:, 1::2] = clipped[:, 1::2].clamp(0, height)
    x1, y1, x2, y2 = clipped.unbind(1)
    visible = (x2 > x1) & (y2 > y1)
    if masks is not None:  # a box may be in sight where no pixel of its object is
        visible &= masks.flatten(1).any(1)
    return replace(target, boxes=clipped, masks=masks).objects(visible.nonzero().flatten())
