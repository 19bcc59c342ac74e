"""Focal and global distillation of detectors (Yang Z. et al., 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from stillhouse.batches import Objects
from stillhouse.functional.foreground import background_weights, focal_foreground
from stillhouse.functional.softmax_attention import channel_attention, place_attention
from stillhouse.methods.base import Method
from stillhouse.methods.generation import aligner
from stillhouse.methods.levels import AtLevels, LevelPair, LevelsSpec
from stillhouse.methods.paired import AdaptedPair
from stillhouse.methods.setting import Setting
from stillhouse.methods.terms import row_term
from stillhouse.models.context import ContextBlock
from stillhouse.objectives.card import Card
from stillhouse.objectives.presets.base import Variant
from stillhouse.spec import require, spec
from stillhouse.types import Lesson, Terms


@spec
class FGD(LevelsSpec):
    """Squared differences of foreground and background, attention, and global context.

    `variant` "paper" maps boxes to cells by the stride. "reference" is the authors' code, which
    scales boxes by the size of the map over that of the image before padding.
    """

    alpha: float = 1e-3  # of the foreground
    beta: float = 5e-4  # of the background
    gamma: float = 5e-4  # of attention
    lam: float = 5e-6  # of context
    temperature: float = 0.5
    variant: Variant = field(default="paper", kw_only=True)
    name: Literal["fgd"] = "fgd"
    card: ClassVar[Card] = Card(
        "Focal and global distillation",
        "1/N * sum over levels ( sum (alpha M_fg + beta M_bg) A_t C_t (f_t - f_s)^2 + gamma "
        "(|A_t - A_s| + |C_t - C_s|) + lam |R_t(f_t) - R_s(f_s)|^2 ),  A = HW softmax(mean_c |f| / "
        "tau), C = channels softmax(mean_hw |f| / tau), R a context block; M_fg one over the cells "
        "of the box, M_bg one over the cells without a box",
        "Yang Z. et al.: Focal and global knowledge distillation for detectors, CVPR 2022",
        ("features", "boxes", "objects"),
        "a context block per level and network, and a 1x1 convolution where channels differ; "
        "discarded after training",
        "A sum over the map, so the weights are for images of 800 x 1333. Published: RetinaNet and "
        "GFocal as the defaults; RepPoints 1.6e-3, 8e-4, 8e-4, 8e-6; FCOS the same with "
        "temperature 0.8; two-stage 5e-5, 2.5e-5, 5e-5, 5e-7 at p2 to p5. A box covers the cells "
        "up to the one after its last edge, as in the authors' code. The block of the teacher is "
        "trained, too, as in the paper.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.temperature > 0, "temperature", "positive", self.temperature)

    def build(self, setting: Setting) -> Method:
        """The method, with the context blocks of both networks."""
        maps = self.level_pairs(setting)
        pairs = [AdaptedPair(pair.student, pair.teacher, aligner(pair)) for pair in maps]
        return FocalGlobal(self, pairs, [pair.teacher_shape[1] for pair in maps])


class FocalGlobal(AtLevels):
    """The terms `foreground`, `background`, `attention` and `context`, summed over levels."""

    def __init__(self, published: FGD, pairs: Sequence[AdaptedPair], widths: Sequence[int]) -> None:
        super().__init__(published, pairs)
        self.weights = {
            "foreground": published.alpha,
            "background": published.beta,
            "attention": published.gamma,
            "context": published.lam,
        }
        self.temperature = published.temperature
        self.stretched = published.variant == "reference"
        self.student_context = nn.ModuleList(ContextBlock(width) for width in widths)
        self.teacher_context = nn.ModuleList(ContextBlock(width) for width in widths)

    def compare(self, levels: Sequence[LevelPair], lesson: Lesson) -> Terms:
        """The sums of each image over all levels."""
        objects = self.objects(lesson)
        parts = []
        for index, level in enumerate(levels):
            cells = self.place(objects, level, lesson.sizes)
            foreground = focal_foreground(cells, objects.image, level.shape)
            parts.append([*self.focal(level, foreground), *self.whole(index, level)])
        sums = torch.stack([torch.stack(part) for part in parts]).sum(0)
        return {
            name: row_term(losses, lesson.weight, weight)
            for (name, weight), losses in zip(self.weights.items(), sums, strict=True)
        }

    def place(self, objects: Objects, level: LevelPair, sizes: Tensor | None) -> Tensor:
        """The boxes in cells of a level: -> (M, 4)."""
        boxes = objects.boxes.to(level.student.dtype)
        if not self.stretched:
            return boxes / level.stride
        assert sizes is not None
        _, height, width = level.shape
        scale = boxes.new_tensor([height, width]) / sizes[objects.image]
        return boxes * scale.flip(1).repeat(1, 2)

    def focal(self, level: LevelPair, foreground: Tensor) -> tuple[Tensor, Tensor]:
        """The differences in the foreground (N, H, W) and outside of it: -> (N,), (N,)."""
        tau = self.temperature
        channels = channel_attention(level.teacher, tau)[:, :, None, None]
        differences = ((level.teacher - level.student).square() * channels).sum(1)
        differences = differences * place_attention(level.teacher, tau)
        inside, outside = (
            (differences * mask).sum((1, 2))
            for mask in (foreground, background_weights(foreground))
        )
        return inside, outside

    def whole(self, index: int, level: LevelPair) -> tuple[Tensor, Tensor]:
        """The differences of attention and of maps with context: -> (N,), (N,)."""
        tau = self.temperature
        attention = [
            (attend(level.teacher, tau) - attend(level.student, tau)).abs().flatten(1).sum(1)
            for attend in (place_attention, channel_attention)
        ]
        context = self.teacher_context[index](level.teacher)
        difference = context - self.student_context[index](level.student)
        return attention[0] + attention[1], difference.square().flatten(1).sum(1)
