"""Decoupled features: foreground and background of the neck apart (Guo J. et al., 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from stillhouse.functional.foreground import level_of_scale, object_cells
from stillhouse.methods.base import Method
from stillhouse.methods.levels import AtLevels, LevelPair, LevelsSpec
from stillhouse.methods.paired import AdaptedPair
from stillhouse.methods.setting import Setting
from stillhouse.models.adapters import Pointwise
from stillhouse.objectives.card import Card
from stillhouse.spec import require, spec
from stillhouse.types import Lesson, Term, Terms


@spec
class DeFeat(LevelsSpec):
    """Mean squared differences inside and outside of objects, with weights of their own.

    Each object is foreground at one level, by its size: an object whose root of the area is below
    2 `finest` pixels at the first level, and each doubling leads one level on.
    """

    foreground: float = 3.0
    background: float = 12.0
    finest: float = 56.0
    name: Literal["defeat"] = "defeat"
    card: ClassVar[Card] = Card(
        "Decoupled features",
        "1/L * sum over levels ( foreground / (2 C sum M) * sum M (f_t - W f_s)^2 + background / "
        "(2 C sum (1 - M)) * sum (1 - M) (f_t - W f_s)^2 ),  M the cells of objects of the level",
        "Guo J. et al.: Distilling object detectors via decoupled features, CVPR 2021",
        ("features", "boxes", "objects"),
        "a 1x1 convolution per level; discarded after training",
        "The features of the neck only; the paper also divides the class scores of proposals. The "
        "weights are those of the authors' configuration for Faster R-CNN on VOC. Means are over "
        "the cells of the whole batch.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.finest > 0, "finest", "positive", self.finest)

    def build(self, setting: Setting) -> Method:
        """The method, with an adapter for each level."""
        pairs = [
            AdaptedPair(
                pair.student,
                pair.teacher,
                Pointwise().build(pair.student_shape, pair.teacher_shape),
            )
            for pair in self.level_pairs(setting)
        ]
        return Decoupled(self, pairs)


class Decoupled(AtLevels):
    """Two terms a level, `LEVEL/foreground` and `LEVEL/background`."""

    spec: DeFeat

    def compare(self, levels: Sequence[LevelPair], lesson: Lesson) -> Terms:
        """The sums over cells of both kinds, and twice the number of their elements as mass."""
        terms = {}
        masks = self.masks(levels, lesson)
        for name, level, mask in zip(self.names, levels, masks, strict=True):
            differences = (level.teacher - level.student).square().sum(1)
            elements = 2 * level.teacher.shape[1]
            for kind, part, weight in (
                ("foreground", mask, self.spec.foreground),
                ("background", 1 - mask, self.spec.background),
            ):
                total = (differences * part).sum()
                terms[f"{name}/{kind}"] = Term(total, elements * part.sum(), weight / len(levels))
        return terms

    @torch.no_grad()
    def masks(self, levels: Sequence[LevelPair], lesson: Lesson) -> list[Tensor]:
        """1 in the cells of the objects of each level: L levels -> L x (N, H, W)."""
        objects = self.objects(lesson)
        boxes = objects.boxes.to(levels[0].student.dtype)
        place = level_of_scale(boxes, self.spec.finest, len(levels))
        return [
            object_cells(
                boxes[place == index] / level.stride, objects.image[place == index], level.shape
            )
            for index, level in enumerate(levels)
        ]
