"""A student's map that a teacher's classifier can read (Yang J. et al., 2021)."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from stillhouse.functional.distance import mse
from stillhouse.functional.dtype import full_precision, upcast
from stillhouse.methods.base import Method
from stillhouse.methods.setting import ComposedMethod, Setting
from stillhouse.methods.terms import row_term
from stillhouse.models.connectors import pointwise_norm_relu
from stillhouse.models.pooled_head import PooledHead
from stillhouse.objectives.card import Card
from stillhouse.spec import spec
from stillhouse.types import Lesson, Terms


@spec
class SRRL(ComposedMethod):
    """The mean of the teacher's last map, and what the teacher's classifier says of the student's.

    `weight` is that of the classifier's answers, `feature_weight` that of the means.
    """

    weight: float = 1.0
    feature_weight: float = 1.0
    name: Literal["srrl"] = "srrl"
    card: ClassVar[Card] = Card(
        "Softmax regression representation learning",
        "feature_weight / (N C) * sum ( GAP h_s - GAP f_t )^2 + weight / (N K) * "
        "sum ( W_t GAP h_s + b_t - z_t )^2,  h_s = ReLU(BN(conv1x1(f_s)))",
        "Yang J. et al.: Knowledge distillation via softmax regression representation learning, "
        "ICLR 2021",
        ("features", "head"),
        "a 1x1 convolution with BatchNorm, thrown away after training; one more linear layer",
        "Both networks have to average a map right before one linear layer. h_s is never negative, "
        "so the teacher's last map has to be one after a ReLU. The teacher's classifier is copied "
        "at the start.",
    )

    def build(self, setting: Setting) -> Method:
        """A connector between the two last maps."""
        student, teacher = setting.student_head(), setting.teacher_head()
        before = setting.student_shapes([student.map])[student.map]
        return Regression(
            self, student, teacher, pointwise_norm_relu(before[1], teacher.linear.in_features)
        )


class Regression(Method):
    """Means of both last maps, compared as they are and through the teacher's classifier."""

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self, spec: SRRL, student: PooledHead, teacher: PooledHead, connector: nn.Module
    ) -> None:
        super().__init__()
        self.spec, self.connector = spec, connector
        self.label_share = spec.label_share
        self.student_taps, self.teacher_taps = (student.map,), (teacher.map,)
        for name in ("weight", "bias"):
            copied: Tensor | None = getattr(teacher.linear, name)
            copied = None if copied is None else copied.detach().clone()
            self.register_buffer(name, copied, persistent=False)

    def forward(self, lesson: Lesson) -> Terms:
        """One term of the means and one of the answers."""
        student = upcast(lesson.student.taps[self.student_taps[0]])
        teacher = upcast(lesson.teacher.taps[self.teacher_taps[0]].detach())
        with full_precision(student):
            ours, theirs = self.connector(student).mean((2, 3)), teacher.mean((2, 3))
            features = mse(ours, theirs)
            answers = mse(self.answer(ours), self.answer(theirs))
        rise = self.spec.ramp_factor(lesson.clock)
        return {
            "feature": row_term(features, lesson.weight, rise * self.spec.feature_weight),
            "regression": row_term(answers, lesson.weight, rise * self.spec.weight),
        }

    def answer(self, vector: Tensor) -> Tensor:
        """What the teacher's classifier says: (N, C) -> (N, K)."""
        bias = None if self.bias is None else upcast(self.bias)
        return F.linear(vector, upcast(self.weight), bias)
