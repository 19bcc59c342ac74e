"""Feature distillation by attention and non-local relations (Zhang and Ma, 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from stillhouse.distributed import sum_over_ranks
from stillhouse.errors import UserError
from stillhouse.functional.softmax_attention import channel_attention, place_attention
from stillhouse.methods.base import Method
from stillhouse.methods.levels import AtLevels, LevelPair, LevelsSpec
from stillhouse.methods.maps import MapPair
from stillhouse.methods.paired import AdaptedPair
from stillhouse.methods.setting import Setting
from stillhouse.methods.terms import batch_term
from stillhouse.models.context import NonLocalBlock
from stillhouse.objectives.card import Card
from stillhouse.objectives.presets.base import Variant
from stillhouse.spec import require, spec
from stillhouse.types import Lesson, Terms

POOLED = {0: 8, 1: 4}  # places of keys that are pooled, at the finest levels; elsewhere 2
NARROW = 4  # by which channels are divided there; elsewhere 2


@spec
class FKD(LevelsSpec):
    """Norms of differences over the whole batch: of attended maps, of means, of relations.

    The norms are those of a batch of `images` images, whatever the size of the batch: the root of
    `images` times the mean of the squares. `variant` "paper" multiplies differences by the
    attention of places and channels. "reference" is the authors' code for two-stage detectors,
    which leaves out that of channels.
    """

    alpha: float = 4.2e-4  # of attended differences and of relations
    beta: float = 2.4e-2  # of means over places and over channels
    temperature: float = 0.1
    images: int = 2
    variant: Variant = field(default="paper", kw_only=True)
    name: Literal["fkd"] = "fkd"
    card: ClassVar[Card] = Card(
        "Feature-based knowledge distillation",
        "sum over levels ( alpha |M^(1/2) (f_t - W f_s)| + beta (|mean_hw f_t - W_c mean_hw f_s| + "
        "|mean_c f_t - conv(mean_c f_s)|) + alpha |R_t(f_t) - W_n R_s(f_s)| ),  norms over a batch "
        "of `images`, M the mean attention of both networks, R a non-local block",
        "Zhang L., Ma: Improve object detection with feature-based knowledge distillation: "
        "towards accurate and efficient detectors, ICLR 2021",
        ("features", "boxes", "batch"),
        "two non-local blocks and four small adapters per level; discarded after training",
        "It reads no ground truth. The value is that of all images, however they are divided among "
        "ranks; the authors add the norms of each GPU, with 2 images on it. The weights are those "
        "of their code for one-stage detectors. Two-stage: alpha 7e-5, beta 4e-3, temperature 0.5, "
        "variant reference. The blocks have no batch norm at their end, so that they do not depend "
        "on ranks. In the paper, attention is one softmax of the sum of both networks.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.temperature > 0, "temperature", "positive", self.temperature)
        require(self.images >= 1, "images", "at least 1", self.images)

    def build(self, setting: Setting) -> Method:
        """The method, with its blocks and adapters."""
        maps = self.level_pairs(setting)
        for pair in maps:
            if self.variant == "paper" and pair.student_shape[1] != pair.teacher_shape[1]:
                raise UserError(
                    f"method fkd averages the attention of channels, but the student's tap "
                    f"{pair.student!r} has {pair.student_shape[1]} and the teacher's "
                    f"{pair.teacher_shape[1]}; set method.variant=reference, or give both networks "
                    "the same options.neck.width"
                )
        return AttentiveRelations(self, maps)


class AttentiveRelations(AtLevels):
    """The terms `attention`, `channel`, `space` and `relation`, summed over levels."""

    def __init__(self, published: FKD, maps: Sequence[MapPair]) -> None:
        widths = [(pair.student_shape[1], pair.teacher_shape[1]) for pair in maps]
        pairs = [
            AdaptedPair(pair.student, pair.teacher, nn.Conv2d(before, after, 1))
            for pair, (before, after) in zip(maps, widths, strict=True)
        ]
        super().__init__(published, pairs)
        self.temperature, self.images = published.temperature, published.images
        self.by_channel = published.variant == "paper"
        self.weights = {
            "attention": published.alpha,
            "channel": published.beta,
            "space": published.beta,
            "relation": published.alpha,
        }
        self.channel = nn.ModuleList(nn.Linear(*width) for width in widths)
        self.space = nn.ModuleList(nn.Conv2d(1, 1, 3, padding=1) for _ in widths)
        self.relation = nn.ModuleList(nn.Conv2d(*width, 1) for width in widths)
        self.student_block = nn.ModuleList(block(i, s) for i, (s, _) in enumerate(widths))
        self.teacher_block = nn.ModuleList(block(i, t) for i, (_, t) in enumerate(widths))

    def compare(self, levels: Sequence[LevelPair], lesson: Lesson) -> Terms:
        """The norms of each level over the images of all ranks."""
        squares = torch.stack(
            [torch.stack(self.squares(index, level)) for index, level in enumerate(levels)]
        )
        weight = torch.ones_like(squares[0, 0]) if lesson.weight is None else lesson.weight
        weight = weight.to(squares.dtype)
        sums = sum_over_ranks(torch.cat([(squares * weight).sum(2).flatten(), weight.sum()[None]]))
        means = sums[:-1] / sums[-1].clamp(min=1e-12)
        norms = root(self.images * means).view(len(levels), -1).sum(0)
        return {
            name: batch_term(norm, weight)
            for (name, weight), norm in zip(self.weights.items(), norms, strict=True)
        }

    def squares(self, index: int, level: LevelPair) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The squared differences of one level, summed for each image: -> four times (N,)."""
        s, t = level.raw, level.teacher
        attended = ((t - level.student).square() * self.attention(s, t)).flatten(1).sum(1)
        channel = t.mean((2, 3)) - self.channel[index](s.mean((2, 3)))
        space = t.mean(1, keepdim=True) - self.space[index](s.mean(1, keepdim=True))
        relation = self.teacher_block[index](t) - self.relation[index](self.student_block[index](s))
        return (
            attended,
            channel.square().sum(1),
            space.square().flatten(1).sum(1),
            relation.square().flatten(1).sum(1),
        )

    @torch.no_grad()
    def attention(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The mean attention of both networks, without a gradient: -> (N, 1 or C, H, W)."""
        tau = self.temperature
        place = (place_attention(student, tau) + place_attention(teacher, tau))[:, None] / 2
        if not self.by_channel:
            return place
        channel = (channel_attention(student, tau) + channel_attention(teacher, tau)) / 2
        return place * channel[:, :, None, None]


def block(index: int, width: int) -> NonLocalBlock:
    """The non-local block of the level at an index, with less memory at the finest levels."""
    pooled = POOLED.get(index, 2)
    return NonLocalBlock(width, max(1, width // (NARROW if index in POOLED else 2)), pooled)


def root(x: Tensor) -> Tensor:
    """Square root, whose gradient at 0 is 0: (...) -> (...)."""
    positive = x > 0
    return x.where(positive, 1).sqrt().where(positive, 0)
