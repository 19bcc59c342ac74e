"""What a loader gives and a task understands: known to both, which do not know each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Labelled(NamedTuple):
    """Images of one class each, or of several."""

    image: Tensor  # (N, C, H, W) normalised
    label: Tensor  # (N,) class index, or (N, C) the classes of each, or its share of each if mixed
    key: Tensor  # (N,) which sample of the data set
    view: Tensor  # (N,) which augmentation of it: the epoch, for one view an epoch
    strong: Tensor | None = None  # (N, C, H, W) a second, stronger view, for methods that ask

    def rows(self, index: slice | Tensor) -> Labelled:
        """Some of the images, with all that belongs to them."""
        strong = None if self.strong is None else self.strong[index]
        *plain, _ = self
        image, label, key, view = (part[index] for part in plain if part is not None)
        return Labelled(image, label, key, view, strong)


def as_labelled(batch: Any) -> Labelled:
    """A batch of somebody else's loader: a pair, a mapping, or what we have already."""
    if isinstance(batch, Labelled):
        return batch
    if isinstance(batch, Mapping):
        image = next(
            (batch[name] for name in ("image", "images", "pixel_values") if name in batch), None
        )
        label = next((batch[name] for name in ("label", "labels") if name in batch), None)
    else:
        image, label, *_ = batch
    if image is None or label is None:
        raise ValueError("a batch needs images and labels: a pair, or a mapping with both")
    keys = torch.arange(len(image), device=image.device)
    return Labelled(image, label, keys, torch.zeros_like(keys))
