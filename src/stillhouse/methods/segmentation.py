"""What methods that use class masks share: maps of two segmenters, and the class of each pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stillhouse.batches import IGNORE
from stillhouse.errors import UserError
from stillhouse.functional.dtype import full_precision, upcast
from stillhouse.functional.resize import resize_maps, resize_mask
from stillhouse.methods.base import Method
from stillhouse.methods.paired import AdaptedPair, PairedSpec, term_names
from stillhouse.methods.setting import Setting
from stillhouse.models.segmenters.output import read_segmentation
from stillhouse.objectives.presets.feature import TapPairs
from stillhouse.types import Lesson, Terms

MASK_AXES = 3  # N, H, W


class PixelMaps(NamedTuple):
    """The maps of both networks at one pair of taps, of the images that count."""

    student: Tensor  # (N, C, h, w)
    teacher: Tensor  # (N, D, h, w) without a gradient, resized to the student's size
    labels: Tensor  # (N, h w) class of each pixel, -1 for none
    weight: Tensor  # (N,) of each image, positive


class AtMaps(Method):
    """Compares maps of two segmenters at each pair of taps; subclasses implement `compare`."""

    needs_labels = True

    def __init__(self, published: PairedSpec, pairs: TapPairs, classes: int) -> None:
        super().__init__()
        self.spec, self.classes = published, classes
        self.label_share = published.label_share
        self.student_taps, self.teacher_taps = (tuple(side) for side in zip(*pairs, strict=True))
        self.names = term_names([AdaptedPair(*pair, nn.Identity()) for pair in pairs])

    def compare(self, index: int, maps: PixelMaps, lesson: Lesson) -> Terms:
        """The terms of one pair by name, before the ramp."""
        raise NotImplementedError

    def forward(self, lesson: Lesson) -> Terms:
        """The terms of all pairs."""
        ramp = self.spec.ramp_factor(lesson.clock)
        terms: Terms = {}
        for index in range(len(self.names)):
            maps = self.maps(index, lesson)
            with full_precision(maps.student):
                terms |= self.compare(index, maps, lesson)
        return {name: term._replace(weight=ramp * term.weight) for name, term in terms.items()}

    def maps(self, index: int, lesson: Lesson) -> PixelMaps:
        """The maps of one pair, in full precision, without images of weight 0."""
        student = upcast(lesson.student.taps[self.student_taps[index]])
        size = (student.shape[2], student.shape[3])
        teacher = upcast(lesson.teacher.taps[self.teacher_taps[index]].detach())
        labels = label_rows(lesson.labels, student, self.classes)
        if lesson.weight is None:
            weight = student.new_ones(len(student))
            return PixelMaps(student, resize_maps(teacher, size), labels, weight)
        kept = lesson.weight > 0
        weight = lesson.weight[kept].to(student.dtype)
        return PixelMaps(student[kept], resize_maps(teacher[kept], size), labels[kept], weight)


def label_rows(mask: Tensor | None, maps: Tensor, classes: int) -> Tensor:
    """The class of each pixel of maps, that of the nearest pixel: (N, H, W) -> (N, h w).

    It is -1 for ignored pixels, and for all pixels without labels. Raises UserError for labels that
    are not masks.
    """
    number, size = len(maps), (maps.shape[2], maps.shape[3])
    if mask is None:
        return torch.full((number, size[0] * size[1]), -1, device=maps.device)
    if mask.ndim != MASK_AXES:
        raise UserError(
            f"the method needs the class of each pixel, but the labels have shape "
            f"{' x '.join(map(str, mask.shape))}; use it with task=semantic"
        )
    labels = resize_mask(mask, size).flatten(1).long()
    return labels.masked_fill((labels < 0) | (labels >= classes) | (labels == IGNORE), -1)


def number_of_classes(setting: Setting) -> int:
    """The classes of the student's output; raises UserError where it has no class maps."""
    return read_segmentation(setting.student_output()).classes


def check_weights(named: Sequence[tuple[str, float]]) -> None:
    """Refuse negative weights, and weights that are all 0."""
    for name, value in named:
        if value < 0:
            raise ValueError(f"`{name}` must be non-negative, got {value!r}")
    if not any(value for _, value in named):
        names = ", ".join(name for name, _ in named)
        raise ValueError(f"{names} are all 0; set at least one of them above 0")
