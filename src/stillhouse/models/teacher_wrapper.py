"""A teacher behind the conversion of its images and of its classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillhouse.errors import UserError
from stillhouse.models.detectors.object_output import ObjectOutput
from stillhouse.models.scores import main_tensor
from stillhouse.models.segmenters.output import read_segmentation

VECTORS = 2  # axes of the scores of a classifier


class TeacherWrapper(nn.Module):
    """A teacher that takes the student's images and returns scores for the data's classes.

    It converts the normalisation and size of the images, and selects and orders the classes, of
    logits (N, C) or of a detector's output. The images of a detector keep their size, because its
    priors would be those of other images. With `features_only` it returns None, and is of use for
    the features that are read inside it.
    """

    factor: Tensor
    shift: Tensor
    select: Tensor | None

    def __init__(
        self,
        model: nn.Module,
        *,
        data: tuple[Sequence[float], Sequence[float]],
        teacher: tuple[Sequence[float], Sequence[float]] | None = None,
        size: tuple[int, int] | None = None,
        select: Sequence[int] | None = None,
        features_only: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.size, self.features_only = model, size, features_only
        mean, std = (torch.tensor(tuple(x), dtype=torch.float32) for x in data)
        teacher_mean, teacher_std = (
            (torch.tensor(tuple(x)) for x in teacher) if teacher else (mean, std)
        )
        # (x * std + mean - teacher_mean) / teacher_std in one multiplication and one addition
        self.register_buffer("factor", (std / teacher_std)[:, None, None])
        self.register_buffer("shift", ((mean - teacher_mean) / teacher_std)[:, None, None])
        index = None if select is None else torch.tensor(tuple(select))
        self.register_buffer("select", index)

    def forward(self, images: Tensor) -> Any:
        """(N, C, H, W) normalised for the student -> (N, classes) or Dense, in the data's order."""
        images = images * self.factor + self.shift
        resized = self.size is not None and tuple(images.shape[-2:]) != tuple(self.size)
        if resized:
            images = F.interpolate(
                images, self.size, mode="bilinear", align_corners=False, antialias=True
            )
        out = self.model(images)
        if self.features_only:
            return None
        if resized and isinstance(out, ObjectOutput):
            raise UserError(
                f"images cannot be resized to {self.size} for a detector, because its predictions "
                "would lie on another grid than the student's; leave out teacher.size"
            )
        return out if self.select is None else select_classes(out, self.select)


def select_classes(out: Any, index: Tensor) -> Any:
    """Some classes of an output, in the order of their indices.

    It is (N, C), or that of a detector or of a network for segmentation.
    """
    if isinstance(out, ObjectOutput):
        return out.select(index)
    main = main_tensor(out)
    if main is not None and main.ndim == VECTORS:
        return main[:, index]
    return read_segmentation(out).select(index)


def class_order(
    classes: Sequence[str] | None, wanted: Sequence[str], count: int | None = None
) -> list[int] | None:
    """The index of each wanted class among a network's classes; None where the lists are equal.

    `classes` may be unknown; it then has as many as are wanted, if `count` does not say otherwise.
    Raises UserError for a wanted class that is missing.
    """
    if classes is None:
        if count not in (None, len(wanted)):
            raise UserError(
                f"the teacher has {count} classes without names, and the data have {len(wanted)}; "
                "set teacher.classes to their names or to a file of names, or choose a method that "
                "compares features only"
            )
        return None
    if list(classes) == list(wanted):
        return None
    index = {name: number for number, name in enumerate(classes)}
    missing = [name for name in wanted if name not in index]
    if missing:
        raise UserError(
            f"the teacher has {len(classes)} classes, and {len(missing)} of the data's "
            f"{len(wanted)} are not among them ({', '.join(missing[:3])}); train it on these, "
            "correct teacher.classes, or choose a method that compares features only"
        )
    return [index[name] for name in wanted]
