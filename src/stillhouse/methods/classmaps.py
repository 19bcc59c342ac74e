"""Class attention transfer: class activation maps are compared (Guo et al., 2023)."""

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

    `normalise` scales each map to unit length over its cells. `label_weight: 0` is the paper's
    "CAT", which uses no labels.
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
        "one 1x1 convolution per network; no trainable parameters",
        "Both networks must average a map right before one linear layer and have the same "
        "classes. beta is tuned for each pair of networks (0.5 to 600 in the paper); for different "
        "architectures the paper sets `normalise` and a larger beta.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.size >= 1, "size", "at least 1", self.size)
        if self.size == 1 and self.normalise:
            raise ValueError("a normalised map of one cell is constant; set a larger size")

    def build(self, setting: Setting) -> Method:
        """The method; it has no trainable parameters. Raises UserError for other classifiers."""
        student, teacher = setting.student_head(), setting.teacher_head()
        classes = student.linear.out_features, teacher.linear.out_features
        if classes[0] != classes[1]:
            raise UserError(
                f"the student has {classes[0]} classes and the teacher {classes[1]}, but catkd "
                "compares the map of each class; give both networks the same classes"
            )
        return ClassMaps(self, student, teacher)


class ClassMaps(Method):
    """Class activation maps of both networks, the student's with its current classifier weights.

    Biases are left out: they add one constant per class at every position.
    """

    weight: Tensor

    def __init__(self, spec: CATKD, student: PooledHead, teacher: PooledHead) -> None:
        super().__init__()
        self.spec = spec
        self.label_share = spec.label_share
        self.student_taps, self.teacher_taps = (student.map,), (teacher.map,)
        # In a tuple, so that it is not registered here as well: it is part of the student.
        self.classifier: tuple[nn.Linear] = (student.linear,)
        self.register_buffer("weight", teacher.linear.weight.detach().clone(), persistent=False)

    def forward(self, lesson: Lesson) -> Terms:
        """One term, `class_maps`."""
        student = upcast(lesson.student.taps[self.student_taps[0]])
        teacher = upcast(lesson.teacher.taps[self.teacher_taps[0]].detach())
        size, normalise = self.spec.size, self.spec.normalise
        with full_precision(student):
            student_maps = class_maps(student, upcast(self.classifier[0].weight), size, normalise)
            teacher_maps = class_maps(teacher, upcast(self.weight), size, normalise)
            losses = class_attention_transfer(student_maps, teacher_maps)
        factor = self.spec.ramp_factor(lesson.clock) * self.spec.beta
        return {"class_maps": row_term(losses, lesson.weight, factor)}
