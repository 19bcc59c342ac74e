"""Which methods read the labels of images, and so cannot learn from images without them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from stillhouse.batches import Objects, Target
from stillhouse.errors import UserError
from stillhouse.objectives.published import Published

LABELS = frozenset({"labels", "class", "masks", "objects"})  # needs that are read from labels


def reads_labels(spec: Any) -> bool:
    """Whether a method reads the labels, objects or class masks of images."""
    return bool(LABELS & set(spec.needs))


def check_labelled(specs: Sequence[Published], target: Target) -> None:
    """Raise UserError for a batch in which images have no labels, and a method that reads them.

    Tensors on an accelerator are not looked at, because that would wait for the device.
    """
    for spec in specs:
        if reads_labels(spec) and lacks_labels(target):
            name = spec.name  # type: ignore[attr-defined]
            raise UserError(
                f"method {name} needs the labels of every image, but images of the batch have "
                "none; pass their labels, or choose a method that needs none, such as kd"
            )


def lacks_labels(target: Target) -> bool:
    """Whether an image of a batch has no labels, as far as that is known without waiting."""
    if isinstance(target, Objects):
        return target.unlabelled is not None and bool(target.unlabelled.any())
    if isinstance(target, Tensor):
        return target.device.type == "cpu" and bool((target < 0).any())
    return target is None
