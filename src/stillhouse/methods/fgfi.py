"""Fine-grained feature imitation: maps near objects (Wang T. et al., 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from stillhouse.functional.foreground import near_objects
from stillhouse.methods.base import Method
from stillhouse.methods.levels import AtLevels, LevelPair, LevelsSpec, grid_of
from stillhouse.methods.paired import AdaptedPair
from stillhouse.methods.setting import Setting
from stillhouse.objectives.card import Card
from stillhouse.objectives.presets.base import Variant
from stillhouse.spec import require, spec
from stillhouse.types import Lesson, Term, Terms

SMALL = 1e-4  # deviation of the adapter's weights at the start


@spec
class FGFI(LevelsSpec):
    """Squared differences in cells whose anchors are near to an object.

    An anchor is near to an object if its IoU is more than `share` of the highest IoU of that
    object. `variant` "paper" counts each cell once, "reference" once for each such pair of anchor
    and object, as in the public code.
    """

    weight: float = 0.01
    share: float = 0.5
    variant: Variant = field(default="paper", kw_only=True)
    name: Literal["fgfi"] = "fgfi"
    card: ClassVar[Card] = Card(
        "Fine-grained feature imitation",
        "weight / (2 sum M) * sum M (f_t - ReLU(conv3x3(f_s)))^2,  M 1 in cells with an anchor "
        "whose IoU with an object is more than `share` of the object's highest",
        "Wang T. et al.: Distilling object detectors with fine-grained feature imitation, "
        "CVPR 2019",
        ("features", "boxes", "objects"),
        "a 3x3 convolution per level; discarded after training",
        "The paper has one map. Here the highest IoU of an object is over the anchors of all "
        "levels, and the sums are over all levels, too. Detectors with one prior per cell have one "
        "anchor there; a point is the square of one stride around it, so that the cells inside of "
        "an object are all alike.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.share < 1, "share", "in [0, 1)", self.share)

    def build(self, setting: Setting) -> Method:
        """The method, with an adapter for each level."""
        pairs = [
            AdaptedPair(
                pair.student, pair.teacher, imitator(pair.student_shape[1], pair.teacher_shape[1])
            )
            for pair in self.level_pairs(setting)
        ]
        return Imitation(self, pairs)


class Imitation(AtLevels):
    """The term `imitation`, over all levels."""

    spec: FGFI

    def compare(self, levels: Sequence[LevelPair], lesson: Lesson) -> Terms:
        """The sum over masked cells, and twice their number as mass."""
        masks = self.masks(levels, lesson)
        totals, masses = [], []
        for level, mask in zip(levels, masks, strict=True):
            totals.append(((level.teacher - level.student).square().sum(1) * mask).sum())
            masses.append(2 * mask.sum())
        total, mass = torch.stack(totals).sum(), torch.stack(masses).sum()
        return {"imitation": Term(total, mass, self.spec.weight)}

    @torch.no_grad()
    def masks(self, levels: Sequence[LevelPair], lesson: Lesson) -> list[Tensor]:
        """The near anchors of each cell, at most 1 as in the paper: L levels -> L x (N, H, W)."""
        objects, priors = self.objects(lesson), grid_of(lesson.student.out)
        boxes = objects.boxes.to(priors.boxes.dtype)
        images = len(levels[0].student)
        counts = near_objects(boxes, objects.image, images, priors.boxes, self.spec.share)
        parts = counts.to(levels[0].student.dtype).split(priors.counts, 1)
        masks = [parts[level.number].view(*level.shape, priors.each).sum(3) for level in levels]
        return [mask.clamp(max=1) for mask in masks] if self.spec.variant == "paper" else masks


def imitator(before: int, after: int) -> nn.Sequential:
    """A 3x3 convolution with small weights, and ReLU: (N, before, H, W) -> (N, after, H, W)."""
    conv = nn.Conv2d(before, after, 3, padding=1)
    nn.init.trunc_normal_(conv.weight, std=SMALL, a=-2 * SMALL, b=2 * SMALL)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return nn.Sequential(conv, nn.ReLU())
