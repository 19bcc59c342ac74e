"""Mixup and CutMix: pairs of images of a batch are mixed, and their labels with them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stillhouse.batches import Batch
from stillhouse.data.random import seeded
from stillhouse.errors import UserError
from stillhouse.spec import spec

NOT_MIXED = (
    "data.mix mixes the classes of whole images, but the data have other targets; leave data.mix "
    "out"
)


@spec
class Mix:
    """Mixup (Zhang et al., 2018) and CutMix (Yun et al., 2019).

    `mixup` and `cutmix` are the alpha of their Beta distributions, 0 for off. A batch is mixed with
    a `probability`; if both are on, CutMix is chosen with the probability `switch`.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    probability: float = 1.0
    switch: float = 0.5

    def __post_init__(self) -> None:
        for name in ("mixup", "cutmix"):
            if not 0 <= (alpha := getattr(self, name)) < float("inf"):
                raise ValueError(f"{name} must be finite and at least 0, got {alpha}")
        for name in ("probability", "switch"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {value}")
        if not (self.mixup or self.cutmix):
            raise ValueError("mix needs mixup or cutmix above 0; leave mix out for none")


def mix_batch(batch: Batch[Any], classes: int, how: Mix, seed: int) -> Batch[Any]:
    """A batch in which each image and its target are mixed with the one before.

    Class indices (N,) become shares of each class (N, classes), also where the batch is not mixed.
    Raises UserError for other targets than classes of whole images.
    """
    from torchvision.transforms import v2

    images, labels = batch.images, batch.target
    if not isinstance(labels, Tensor) or labels.ndim > 2:
        raise UserError(NOT_MIXED)
    with seeded(seed):
        chance, choice = torch.rand(2).tolist()
        if chance >= how.probability:
            if labels.ndim == 1:
                labels = F.one_hot(labels, classes).to(images.dtype)
            return replace(batch, target=labels)
        cut = how.cutmix > 0 and (how.mixup == 0 or choice < how.switch)
        mixer, alpha = (v2.CutMix, how.cutmix) if cut else (v2.MixUp, how.mixup)
        images, labels = mixer(alpha=alpha, num_classes=classes)(images, labels)
    return replace(batch, images=images, target=labels)
