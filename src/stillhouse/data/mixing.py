"""Mixup and CutMix: images of a batch mixed with one another, and their labels with them."""

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


@spec
class Mix:
    """Mixup (Zhang et al., 2018) and CutMix (Yun et al., 2019), each with the alpha of its Beta.

    A batch is mixed with a `probability`; where both have an alpha, `switch` is that of CutMix.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    probability: float = 1.0
    switch: float = 0.5

    def __post_init__(self) -> None:
        for name in ("mixup", "cutmix"):
            if not 0 <= (alpha := getattr(self, name)) < float("inf"):
                raise ValueError(f"{name} must be a number from 0 on, and is {alpha}")
        for name in ("probability", "switch"):
            if not 0 <= (share := getattr(self, name)) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], and is {share}")
        if not (self.mixup or self.cutmix):
            raise ValueError("mix needs mixup or cutmix above 0; leave it out for none")


def mix_batch(batch: Batch[Any], classes: int, how: Mix, seed: int) -> Batch[Any]:
    """Each image mixed with the one before it, and the targets with them.

    Class indices (N,) become the share of each class (N, classes), also where nothing is mixed;
    shares (N, classes) are mixed as they are.
    """
    from torchvision.transforms import v2

    images, labels = batch.images, batch.target
    if not isinstance(labels, Tensor) or labels.ndim > 2:
        raise UserError(
            "data.mix mixes the classes of whole images, and the data have other targets; leave "
            "data.mix out"
        )
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
