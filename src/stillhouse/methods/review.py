"""Knowledge review: levels of the student are fused with deeper ones (Chen P. et al., 2021)."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Literal

from torch import Tensor

from stillhouse.functional.dtype import full_precision, upcast
from stillhouse.functional.pyramid import hierarchical_context
from stillhouse.methods.base import Method
from stillhouse.methods.maps import check_maps
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
    """Matches stages and penultimate vectors; each level of the student is fused with deeper ones.

    `pairs` go from the shallowest to the deepest; vectors count as maps of one pixel. Levels are
    fused at `width` channels, or the number of channels of the deepest level if that is lower.
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
        "a 1x1 and a 3x3 convolution of up to 512 channels per level, often more parameters than "
        "the student; discarded after training",
        "Its weight is tuned for each pair of networks (0.6 to 8 in the paper). The paper has a "
        "warm-up of 20 of 240 epochs: set warmup.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.width >= 1, "width", "at least 1", self.width)

    def taps(self, setting: Setting) -> TapPairs:
        """The pairs, the teacher's before the ReLU; all stages add `penultimate` if available."""
        pairs = setting.before_activation(super().taps(setting), "teacher")
        if self.pairs not in ("stages", "stage_order") or not setting.has_vectors():
            return pairs
        return (*pairs, VECTORS)

    def build(self, setting: Setting) -> Method:
        """The method, with a fusion module for each pair."""
        maps = check_maps(setting, self.taps(setting), vectors=True)
        width = min(self.width, maps[-1].student_shape[1])
        fusions = [
            Fusion(p.student_shape[1], width, p.teacher_shape[1], p != maps[-1]) for p in maps
        ]
        return Review(
            self,
            [AdaptedPair(p.student, p.teacher, f) for p, f in zip(maps, fusions, strict=True)],
        )


class Review(Paired):
    """Fuses levels from the deepest to the shallowest; each uses the fused map of the last."""

    def __init__(self, spec: ReviewKD, pairs: list[AdaptedPair]) -> None:
        super().__init__(spec, pairs, [spec.weight] * len(pairs))

    def forward(self, lesson: Lesson) -> Terms:
        """One term per pair, named by the student's tap; the deepest is first."""
        ramp, deeper = self.spec.ramp_factor(lesson.clock), None
        terms = {}
        for index in reversed(range(len(self.names))):
            student = as_map(upcast(lesson.student.taps[self.student_taps[index]]))
            teacher = as_map(upcast(lesson.teacher.taps[self.teacher_taps[index]].detach()))
            with full_precision(student):
                reviewed, deeper = self.adapters[index](student, deeper, teacher.shape[2:])
                losses = hierarchical_context(reviewed, teacher)
            weight = ramp * self.weights[index]
            terms[self.names[index]] = row_term(losses, lesson.weight, weight)
        return terms


def as_map(tap: Tensor) -> Tensor:
    """A vector as a map of one pixel: (N, C) -> (N, C, 1, 1), (N, C, H, W) as it is."""
    return tap[:, :, None, None] if tap.ndim == 2 else tap
