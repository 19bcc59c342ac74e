"""Fourth axis: what a row, or one class of a row, counts. Site -> (N,), (N, C) or nothing.

A weighting multiplies losses and leaves the mass alone; what is not to be counted at all is said
by the site's own row weight. `elementwise` ones weigh classes apart.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from stillhouse.spec import require, spec


@spec
class Uniform:
    """All alike."""

    kind: Literal["uniform"] = "uniform"
    elementwise: ClassVar[bool] = False

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor | None:
        return None


@spec
class TeacherConfidence:
    """Rows that the teacher is sure of count more: (N, C) -> (N,)."""

    power: float = 1.0
    kind: Literal["teacher_confidence"] = "teacher_confidence"
    elementwise: ClassVar[bool] = False

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor | None:
        return teacher.softmax(-1).amax(-1).pow(self.power)


@spec
class PowerSum:
    """Rows where the teacher is flat count more: the sum of p^gamma (WTTM): (N, C) -> (N,)."""

    gamma: float = 0.25
    kind: Literal["power_sum"] = "power_sum"
    elementwise: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require(0 < self.gamma < math.inf, "gamma", "positive and finite", self.gamma)

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor | None:
        return (self.gamma * teacher.log_softmax(-1)).exp().sum(-1)


@spec
class Disagreement:
    """Classes on which the two differ count more: |p_t - p_s|^beta (BCKD): (N, C) -> (N, C).

    The gradient flows through the weight, as in the authors' code, unless `detach`.
    """

    beta: float = 1.0
    detach: bool = False
    kind: Literal["disagreement"] = "disagreement"
    elementwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(self.beta >= 0, "beta", "non-negative", self.beta)

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor | None:
        student = student.detach() if self.detach else student
        gap = (teacher.sigmoid() - student.sigmoid()).abs()
        same = gap == 0  # a power below 1 has no finite slope there
        return torch.where(same, 1, gap).pow(self.beta).where(~same, float(self.beta == 0))


Weighting = Annotated[
    Uniform | TeacherConfidence | PowerSum | Disagreement, Field(discriminator="kind")
]
