"""Fourth axis: the weight of each row, or of each class of a row: -> (N,), (N, C) or None.

A weighting multiplies losses and does not change the mass; rows to leave out have weight 0 in the
site. `elementwise` ones weight single classes.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from stillhouse.functional.divergence import disagreement
from stillhouse.spec import require, spec


@spec
class Uniform:
    """Equal weights."""

    kind: Literal["uniform"] = "uniform"
    elementwise: ClassVar[bool] = False

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor | None:
        return None


@spec
class TeacherConfidence:
    """The teacher's confidence to a power: (N, C) -> (N,)."""

    power: float = 1.0
    kind: Literal["teacher_confidence"] = "teacher_confidence"
    elementwise: ClassVar[bool] = False

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor | None:
        return teacher.softmax(-1).amax(-1).pow(self.power)


@spec
class PowerSum:
    """Sum of p^gamma of the teacher, larger for flat predictions (WTTM): (N, C) -> (N,)."""

    gamma: float = 0.25
    kind: Literal["power_sum"] = "power_sum"
    elementwise: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require(0 < self.gamma < math.inf, "gamma", "positive and finite", self.gamma)

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor | None:
        return (self.gamma * teacher.log_softmax(-1)).exp().sum(-1)


@spec
class Disagreement:
    """Difference of the probabilities, |p_t - p_s|^beta (BCKD): (N, C) -> (N, C).

    The gradient flows through the weight, as in the authors' code, unless `detach`.
    """

    beta: float = 1.0
    detach: bool = False
    kind: Literal["disagreement"] = "disagreement"
    elementwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(self.beta >= 0, "beta", "non-negative", self.beta)

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor | None:
        return disagreement(student, teacher, self.beta, self.detach)


Weighting = Annotated[
    Uniform | TeacherConfidence | PowerSum | Disagreement, Field(discriminator="kind")
]
