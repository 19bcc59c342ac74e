"""SimKD: the student reuses the teacher's classifier (Chen D. et al., 2022)."""

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
    """Reuses the teacher's classifier; the student is trained to match the map before it.

    The trained student consists of its trunk, a projector and that classifier; its parameters
    include all three. Labels have weight 0, unless `label_weight` is set.
    """

    weight: float = 1.0
    reduction: int = 2  # factor by which the projector reduces the teacher's channels inside
    name: Literal["simkd"] = "simkd"
    labels: ClassVar[float] = 0.0
    reshapes: ClassVar[bool] = True
    card: ClassVar[Card] = Card(
        "Simple knowledge distillation with the reused teacher classifier",
        "weight * mean (P(f_s) - f_t)^2 on the last maps; logits are W_t mean_hw P(f_s) + b_t",
        "Chen D. et al.: Knowledge distillation with the reused teacher classifier, CVPR 2022",
        ("features", "head"),
        "a projector of three convolutions and the teacher's classifier, both part of the student",
        "The trained student is larger than the network that the recipe names. Both classifiers "
        "must read the mean of a map, and the teacher must have the classes of the data in their "
        "order.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.reduction >= 1, "reduction", "at least 1", self.reduction)

    def reshape(self, setting: Setting) -> nn.Module:
        """The student with a projector and the teacher's classifier in place of its own."""
        student, teacher = setting.student_head(), setting.teacher_head()
        before = setting.student_shapes([student.map])[student.map]
        after = setting.teacher_shapes([teacher.map])[teacher.map]
        return use_teacher_head(setting.student, student, before, teacher, after, self.reduction)

    def build(self, setting: Setting) -> Method:
        """The method for a student that `reshape` returned; it has no trainable parameters."""
        pair = AdaptedPair(PROJECTOR, setting.teacher_head().map, nn.Identity())
        return Projected(self, [pair], [self.weight])


class Projected(Paired):
    """The mean squared difference of the projected map and the teacher's."""

    def compare(self, index: int, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss of each image: (N, C, H, W), (N, C, h, w) -> (N,)."""
        s, t = align(student, teacher)
        return (s - t).square().flatten(1).mean(1)
