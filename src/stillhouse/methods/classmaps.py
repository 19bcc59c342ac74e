"""Where each class is seen (Guo et al., 2023)."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from stillhouse.errors import UserError
from stillhouse.functional.attention import class_attention_transfer, class_maps
from stillhouse.functional.dtype import full_precision, upcast
from stillhouse.methods.base import Method
from stillhouse.methods.setting import ComposedMethod, Setting
from stillhouse.methods.terms import row_term
from stillhouse.models.pooled_head import PooledHead
from stillhouse.objectives.card import Card
from stillhouse.spec import require, spec
from stillhouse.types import Lesson, Terms


@spec
class CATKD(ComposedMethod):
    """Squared difference of class activation maps, averaged to `size` x `size` cells.

    `normalise` makes each map a direction over space. `label_weight: 0` is the paper's "CAT", which
    has no labels.
    """

    beta: float = 15.0
    size: int = 2
    normalise: bool = False
    name: Literal["catkd"] = "catkd"
    card: ClassVar[Card] = Card(
        "Class attention transfer",
        "beta / (N C r^2) * sum ( n(pool(A_s)) - n(pool(A_t)) )^2,  A_c = sum_d W_cd F_d",
        "Guo et al.: Class attention transfer based knowledge distillation, CVPR 2023",
        ("features", "head"),
        "one 1x1 convolution a network; nothing trainable",
        "Both networks have to average a map right before one linear layer, and to know the same "
        "classes. beta is chosen for each pair (0.5 to 600 in the paper), with `normalise` and a "
        "larger one where architectures differ.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.size >= 1, "size", "at least 1", self.size)
        if self.size == 1 and self.normalise:
            raise ValueError("a map of one cell, normalised, says nothing: give a larger size")

    def build(self, setting: Setting) -> Method:
        """The method; it trains nothing of its own."""
        student, teacher = setting.student_head(), setting.teacher_head()
        classes = student.linear.out_features, teacher.linear.out_features
        if classes[0] != classes[1]:
            raise UserError(
                f"the student knows {classes[0]} classes and the teacher {classes[1]}; catkd "
                "compares the map of each class, so give both the same classes"
            )
        return ClassMaps(self, student, teacher)


class ClassMaps(Method):
    """Class maps of both networks, the student's by its classifier as it is at this time.

    Biases are left out on both sides: they are one constant a class, the same at every place, which
    says nothing of where a class is seen.
    """

    weight: Tensor

    def __init__(self, spec: CATKD, student: PooledHead, teacher: PooledHead) -> None:
        super().__init__()
        self.spec = spec
        self.label_share = spec.label_share
        self.student_taps, self.teacher_taps = (student.map,), (teacher.map,)
        # In a tuple, because the student owns it already.
        self.classifier: tuple[nn.Linear] = (student.linear,)
        self.register_buffer("weight", teacher.linear.weight.detach().clone(), persistent=False)

    def forward(self, lesson: Lesson) -> Terms:
        """One term."""
        student = upcast(lesson.student.taps[self.student_taps[0]])
        teacher = upcast(lesson.teacher.taps[self.teacher_taps[0]].detach())
        size, normalise = self.spec.size, self.spec.normalise
        with full_precision(student):
            ours = class_maps(student, upcast(self.classifier[0].weight), size, normalise)
            theirs = class_maps(teacher, upcast(self.weight), size, normalise)
            losses = class_attention_transfer(ours, theirs)
        factor = self.spec.ramp_factor(lesson.clock) * self.spec.beta
        return {"class_maps": row_term(losses, lesson.weight, factor)}
