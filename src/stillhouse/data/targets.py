"""Targets of samples: how they are collated, and which classes they contain.

The target of one sample is a class index (int), one share per class (classes,), class indices per
pixel (H, W), `Objects` of one image, or None for a sample without labels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeGuard

import torch
from torch import Tensor

from stillhouse.batches import ABSENT, Objects, Target, join_objects
from stillhouse.errors import UserError

SampleTarget = int | Tensor | Objects | None


def collate(targets: Sequence[SampleTarget]) -> Target:
    """The target of a batch from those of its samples; None if all are None.

    If some are None, their class index, all their shares of classes, or all pixels of their mask
    are -1, and `Objects` name them. Raises UserError for targets of different kinds.
    """
    known = [target for target in targets if target is not None]
    if not known:
        return None
    if len({_kind(target) for target in known}) > 1:
        raise UserError("the samples of a batch must have one kind of target")
    if isinstance(known[0], Objects):
        return join_objects(targets)  # type: ignore[arg-type]
    if isinstance(known[0], Tensor):
        if len(known) == len(targets):
            return torch.stack([target for target in targets if isinstance(target, Tensor)])
        found = [signed(target) for target in known if isinstance(target, Tensor)]
        absent, left = torch.full_like(found[0], ABSENT), iter(found)
        return torch.stack([absent if target is None else next(left) for target in targets])
    return torch.tensor([ABSENT if t is None else t for t in targets], dtype=torch.int64)


def signed(target: Tensor) -> Tensor:
    """A target in a type that can be -1: masks of bytes as int16, others as they are."""
    return target.to(torch.int16) if target.dtype == torch.uint8 else target


def _kind(target: SampleTarget) -> tuple[Any, ...]:
    """What targets must have in common to be collated."""
    if isinstance(target, Objects):
        return "objects", *target.tensors()
    return (target.dtype, target.shape) if isinstance(target, Tensor) else ("index",)


def target_at(targets: Target, index: int) -> SampleTarget:
    """The target of one sample from the collated targets, of which its tensors are views.

    None for a sample without labels.
    """
    if isinstance(targets, Tensor):
        found = targets[index]
        if found.dtype != torch.uint8 and bool(found.flatten()[:1] == ABSENT):
            return None
        return int(found) if targets.ndim == 1 else found
    if not isinstance(targets, Objects):
        return None
    absent = targets.unlabelled is not None and bool(targets.unlabelled[index])
    return None if absent else _objects_at(targets, index)


def _objects_at(objects: Objects, index: int) -> Objects:
    # `rows` would take time in proportion to the number of images
    first, last = torch.searchsorted(objects.image, torch.tensor([index, index + 1])).tolist()
    parts: dict[str, Any] = {name: part[first:last] for name, part in objects.tensors().items()}
    parts["image"] = torch.zeros_like(parts["image"])
    return replace(objects, images=1, unlabelled=None, **parts)


def count_samples(targets: Target) -> int:
    """The number of samples of collated targets; 0 for None."""
    if isinstance(targets, Objects):
        return targets.images
    return 0 if targets is None else len(targets)


def presence(targets: Target, classes: int) -> Tensor:
    """Which classes each sample contains: -> (N, classes) bool."""
    present = torch.zeros(count_samples(targets), classes + 1, dtype=torch.bool)
    if isinstance(targets, Objects):
        present[targets.image.cpu(), targets.labels.cpu()] = True
    elif isinstance(targets, Tensor) and targets.ndim == 2:
        present[:, :classes] = targets.cpu() > 0
    elif isinstance(targets, Tensor):
        index = targets.cpu().long()  # masks may be uint8
        index = index.flatten(1) if index.ndim > 1 else index[:, None]
        # absent labels and ignored pixels go to an extra column, which is dropped
        index = torch.where((index < 0) | (index >= classes), classes, index)
        present.scatter_(1, index, True)
    return present[:, :classes]


def resize_mask(mask: Tensor, height: int, width: int) -> Tensor:
    """A mask at another size, each pixel that of the nearest centre: (..., H, W) -> (..., h, w)."""
    rows, columns = (
        ((torch.arange(new, dtype=torch.float64) + 0.5) * old / new).long()
        for new, old in zip((height, width), mask.shape[-2:], strict=True)
    )
    return mask.index_select(-2, rows).index_select(-1, columns)


def describe_target(target: SampleTarget) -> str:
    """A target as text, for fingerprints."""
    if isinstance(target, Objects):
        return str([tensor_digest(part) for part in target.tensors().values()])
    if isinstance(target, Tensor):
        return (
            tensor_digest(target)
            if is_spatial(target)
            else str(target.nonzero().flatten().tolist())
        )
    return str(target)


def tensor_digest(part: Tensor) -> str:
    """A hash of the shape and the values of a tensor."""
    content = f"{part.dtype} {tuple(part.shape)}".encode() + part.cpu().numpy().tobytes()
    return hashlib.sha256(content).hexdigest()


def is_spatial(target: Target | int) -> bool:
    """Whether a target has positions in the image, which geometric transforms change."""
    return isinstance(target, Objects) or is_mask(target)


def is_mask(target: object) -> TypeGuard[Tensor]:
    """Whether a target is the class of each pixel: (H, W), or (N, H, W) of a batch."""
    return isinstance(target, Tensor) and target.ndim >= 2 and not target.is_floating_point()
