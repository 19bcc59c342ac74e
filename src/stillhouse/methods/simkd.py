"""The teacher's classifier reused, the student's features projected onto it (Chen D. et al.)."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from stillhouse.methods.base import Method
from stillhouse.methods.paired import AdaptedPair, Paired
from stillhouse.methods.setting import ComposedMethod, Setting
from stillhouse.models.adapters import align
from stillhouse.models.teacher_head import use_teacher_head
from stillhouse.objectives.card import Card
from stillhouse.spec import require, spec

PROJECTOR = "projector"


@spec
class SimKD(ComposedMethod):
    """Reuses the teacher's classifier: the student learns the map that it reads, and nothing else.

    The student that comes out is its trunk, a projector and that classifier; its parameters are
    counted so. Labels have no share, unless `label_weight` gives them one.
    """

    weight: float = 1.0
    reduction: int = 2  # of the teacher's channels, in the middle of the projector
    name: Literal["simkd"] = "simkd"
    labels: ClassVar[float] = 0.0
    reshapes: ClassVar[bool] = True
    card: ClassVar[Card] = Card(
        "Simple knowledge distillation with the reused teacher classifier",
        "weight * mean (P(f_s) - f_t)^2 on the last maps; answers are W_t mean_hw P(f_s) + b_t",
        "Chen D. et al.: Knowledge distillation with the reused teacher classifier, CVPR 2022",
        ("features", "head"),
        "a projector of three convolutions, which stays in the student with the teacher's head",
        "The student that is shipped is larger than its name says. Both classifiers must read the "
        "mean of a map, and the teacher's must know the data's classes in their order.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.reduction >= 1, "reduction", "at least 1", self.reduction)

    def reshape(self, setting: Setting) -> nn.Module:
        """The student with a projector and the teacher's classifier in place of its own."""
        own, teacher = setting.student_head(), setting.teacher_head()
        before = setting.student_shapes([own.map])[own.map]
        after = setting.teacher_shapes([teacher.map])[teacher.map]
        return use_teacher_head(setting.student, own, before, teacher, after, self.reduction)

    def build(self, setting: Setting) -> Method:
        """The method for a student that was reshaped."""
        pair = AdaptedPair(PROJECTOR, setting.teacher_head().map, nn.Identity())
        return Projected(self, [pair], [self.weight])


class Projected(Paired):
    """The squared difference of the projected map."""

    def compare(self, index: int, student: Tensor, teacher: Tensor) -> Tensor:
        """(N, C, H, W), (N, C, h, w) -> (N,)."""
        s, t = align(student, teacher)
        return (s - t).square().flatten(1).mean(1)
