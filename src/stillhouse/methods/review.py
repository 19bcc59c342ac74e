"""Each level of a teacher from all deeper levels of a student (Chen P. et al., 2021)."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Literal

from torch import Tensor

from stillhouse.functional.dtype import full_precision, upcast
from stillhouse.functional.pyramid import hierarchical_context
from stillhouse.methods.base import Method
from stillhouse.methods.maps import met
from stillhouse.methods.paired import AdaptedPair, Paired, PairedSpec
from stillhouse.methods.setting import Setting
from stillhouse.methods.terms import row_term
from stillhouse.models.connectors import Fusion
from stillhouse.objectives.card import Card
from stillhouse.objectives.presets.feature import PairsOption, TapPairs
from stillhouse.spec import require, spec
from stillhouse.types import Lesson, Terms

VECTORS = ("penultimate", "penultimate")


@spec
class ReviewKD(PairedSpec):
    """Stages and penultimate vectors, each level of the student fused with all deeper ones.

    `pairs` go from the shallowest to the deepest; vectors count as maps of one pixel. Levels are
    fused at `width` channels, or as many as the deepest has.
    """

    weight: float = 1.0
    width: int = 512
    pairs: PairsOption = field(default="stages", kw_only=True)
    name: Literal["reviewkd"] = "reviewkd"
    movable: ClassVar[bool] = False
    card: ClassVar[Card] = Card(
        "Knowledge review",
        "weight * sum over levels of HCL( ABF(f_s, deeper), f_t before its ReLU ),  HCL = squared "
        "difference of the map (1) and of its averages at 4x4, 2x2, 1x1 (1/2, 1/4, 1/8), over the "
        "sum of the weights",
        "Chen P. et al.: Distilling knowledge via knowledge review, CVPR 2021",
        ("features",),
        "a 1x1 and a 3x3 convolution of up to 512 channels a level, often more than the student "
        "has; thrown away after training",
        "Its weight is chosen for each pair (0.6 to 8 in the paper). The paper warms up over 20 of "
        "240 epochs: set warmup.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.width >= 1, "width", "at least 1", self.width)

    def taps(self, setting: Setting) -> TapPairs:
        """The stages and the vectors that classifiers read, where the recipe leaves them open."""
        pairs = setting.before_activation(super().taps(setting), "teacher")
        if self.pairs != "stages" or not setting.has_vectors():
            return pairs
        return (*pairs, VECTORS)

    def build(self, setting: Setting) -> Method:
        """A fusion for each pair."""
        found = met(setting, self.taps(setting), vectors=True)
        width = min(self.width, found[-1].before[1])
        return Review(
            self,
            [
                AdaptedPair(
                    p.student, p.teacher, Fusion(p.before[1], width, p.after[1], p != found[-1])
                )
                for p in found
            ],
        )


class Review(Paired):
    """Levels from the deepest to the shallowest, each passing on what it was fused to."""

    def __init__(self, spec: ReviewKD, pairs: list[AdaptedPair]) -> None:
        super().__init__(spec, pairs, [spec.weight] * len(pairs))

    def forward(self, lesson: Lesson) -> Terms:
        """One term a pair, the deepest first."""
        rise, deeper = self.spec.ramp_factor(lesson.clock), None
        terms = {}
        for index in reversed(range(len(self.names))):
            student = as_map(upcast(lesson.student.taps[self.student_taps[index]]))
            teacher = as_map(upcast(lesson.teacher.taps[self.teacher_taps[index]].detach()))
            with full_precision(student):
                reviewed, deeper = self.adapters[index](student, deeper, teacher.shape[2:])
                losses = hierarchical_context(reviewed, teacher)
            weight = rise * self.weights[index]
            terms[self.names[index]] = row_term(losses, lesson.weight, weight)
        return terms


def as_map(tap: Tensor) -> Tensor:
    """A vector as a map of one pixel: (N, C) -> (N, C, 1, 1), (N, C, H, W) as it is."""
    return tap[:, :, None, None] if tap.ndim == 2 else tap
