"""Softmax regression representation learning (Yang J. et al., 2021)."""

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
    """Matches the pooled last map, and the logits that the teacher's classifier computes from it.

    `weight` is that of the logits, `feature_weight` that of the pooled maps.
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
        "a 1x1 convolution with BatchNorm, discarded after training; one more linear layer",
        "Both networks must average a map right before one linear layer. h_s is never negative, "
        "so the teacher's last map must follow a ReLU. The teacher's classifier is copied before "
        "training.",
    )

    def build(self, setting: Setting) -> Method:
        """The method, with a connector from the student's last map to the teacher's width."""
        student, teacher = setting.student_head(), setting.teacher_head()
        shape = setting.student_shapes([student.map])[student.map]
        return Regression(
            self, student, teacher, pointwise_norm_relu(shape[1], teacher.linear.in_features)
        )


class Regression(Method):
    """Compares the pooled last maps, and the logits of both by the teacher's classifier."""

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
        """The terms `feature`, of the pooled maps, and `regression`, of the logits."""
        student_map = upcast(lesson.student.taps[self.student_taps[0]])
        teacher_map = upcast(lesson.teacher.taps[self.teacher_taps[0]].detach())
        with full_precision(student_map):
            student, teacher = self.connector(student_map).mean((2, 3)), teacher_map.mean((2, 3))
            features = mse(student, teacher)
            logits = mse(self.classify(student), self.classify(teacher))
        ramp = self.spec.ramp_factor(lesson.clock)
        return {
            "feature": row_term(features, lesson.weight, ramp * self.spec.feature_weight),
            "regression": row_term(logits, lesson.weight, ramp * self.spec.weight),
        }

    def classify(self, vector: Tensor) -> Tensor:
        """The logits of the teacher's classifier: (N, C) -> (N, K)."""
        bias = None if self.bias is None else upcast(self.bias)
        return F.linear(vector, upcast(self.weight), bias)
