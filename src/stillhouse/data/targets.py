"""What is known of samples: how targets are collated, and which classes they contain.

The target of one sample is a class index (int), one share per class (classes,), class indices per
pixel (H, W), `Objects` of one image, or None where nothing is known of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from stillhouse.batches import Objects, Target, select_target
from stillhouse.errors import UserError

SampleTarget = int | Tensor | Objects | None
ABSENT = -1  # the class index of a sample without a label, in a batch of others with one
IGNORE = 255  # the class index of a pixel that no loss and no score counts


def collate(targets: Sequence[SampleTarget]) -> Target:
    """Targets of samples as that of a batch.

    Where only some are None, a class index becomes -1, and shares of classes become -1 each.
    """
    known = [target for target in targets if target is not None]
    if not known:
        return None
    if isinstance(known[0], Objects):
        return _collate_objects(targets)
    if isinstance(known[0], Tensor):
        absent = torch.full_like(known[0], ABSENT)
        return torch.stack([absent if t is None else _tensor(t) for t in targets])
    return torch.tensor([ABSENT if t is None else t for t in targets], dtype=torch.int64)


def _tensor(target: Any) -> Tensor:
    if not isinstance(target, Tensor):
        raise UserError("the samples of a batch must have one kind of target")
    return target


def _collate_objects(targets: Sequence[Any]) -> Objects:
    known = [target for target in targets if target is not None]
    numbers = [number for number, target in enumerate(targets) if target is not None]
    image = [torch.full_like(t.image, n) for t, n in zip(known, numbers, strict=True)]
    parts = {
        name: torch.cat([getattr(target, name) for target in known])
        for name in known[0].tensors()
        if name != "image"
    }
    whole: Objects = replace(known[0], image=torch.cat(image), images=len(targets), **parts)
    return whole


def target_at(targets: Target, index: int) -> SampleTarget:
    """The target of one sample out of that of many."""
    if isinstance(targets, Tensor):
        return int(targets[index]) if targets.ndim == 1 else targets[index]
    found: SampleTarget = select_target(targets, slice(index, index + 1))
    return found


def count(targets: Target) -> int:
    """The number of samples that a target describes."""
    if isinstance(targets, Objects):
        return targets.images
    return 0 if targets is None else len(targets)


def presence(targets: Target, classes: int) -> Tensor:
    """Which classes each sample contains: -> (N, classes) bool."""
    found = torch.zeros(count(targets), classes + 1, dtype=torch.bool)
    if isinstance(targets, Objects):
        found[targets.image.cpu(), targets.labels.cpu()] = True
    elif isinstance(targets, Tensor) and targets.ndim == 2:
        found[:, :classes] = targets.cpu() > 0
    elif isinstance(targets, Tensor):
        index = targets.cpu().flatten(1) if targets.ndim > 1 else targets.cpu()[:, None]
        # what is absent or ignored falls into a column of its own, which is dropped
        index = torch.where((index < 0) | (index >= classes), classes, index)
        found.scatter_(1, index, True)
    return found[:, :classes]


def describe(target: SampleTarget) -> str:
    """A target as text, for a fingerprint."""
    if isinstance(target, Objects):
        return str([target.boxes.tolist(), target.labels.tolist()])
    if isinstance(target, Tensor):
        return str(target.nonzero().flatten().tolist())
    return str(target)


def moves(target: Target | int) -> bool:
    """Whether a target lies in the image, so that geometric transforms change it."""
    return isinstance(target, Objects) or (isinstance(target, Tensor) and _is_mask(target))


def _is_mask(target: Tensor) -> bool:
    return target.ndim >= 2 and not target.is_floating_point()
