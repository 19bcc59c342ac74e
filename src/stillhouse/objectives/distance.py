"""Third axis: events, events -> one loss for each, the event axis gone.

`proper` distances are 0 where student and teacher agree; the others have their least there.
`tempered` ones lose their gradient as 1 / temperature squared, which `kappa` gives back.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from stillhouse.functional import distance, divergence
from stillhouse.objectives.activation import Space
from stillhouse.spec import require, spec


@spec
class Divergence:
    """What every distance between distributions has."""

    accepts: ClassVar[Space] = "log_prob"
    proper: ClassVar[bool] = True
    tempered: ClassVar[bool] = True


@spec
class KL(Divergence):
    """KL(teacher || student): (..., E), (..., E) -> (...)."""

    kind: Literal["kl"] = "kl"

    def __call__(self, student: Tensor, teacher: Tensor, weight: Tensor | None = None) -> Tensor:
        return divergence.kl(student, teacher)


@spec
class ReverseKL(Divergence):
    """KL(student || teacher): (..., E), (..., E) -> (...)."""

    kind: Literal["reverse_kl"] = "reverse_kl"

    def __call__(self, student: Tensor, teacher: Tensor, weight: Tensor | None = None) -> Tensor:
        return divergence.reverse_kl(student, teacher)


@spec
class CrossEntropy(Divergence):
    """KL(teacher || student) plus the teacher's entropy: (..., E), (..., E) -> (...)."""

    kind: Literal["cross_entropy"] = "cross_entropy"
    proper: ClassVar[bool] = False

    def __call__(self, student: Tensor, teacher: Tensor, weight: Tensor | None = None) -> Tensor:
        return divergence.cross_entropy(student, teacher)


@spec
class JensenShannon(Divergence):
    """Mean KL of both to their mixture: (..., E), (..., E) -> (...)."""

    kind: Literal["jensen_shannon"] = "jensen_shannon"

    def __call__(self, student: Tensor, teacher: Tensor, weight: Tensor | None = None) -> Tensor:
        return divergence.jensen_shannon(student, teacher)


@spec
class Metric:
    """What every distance between plain numbers has."""

    accepts: ClassVar[Space] = "real"
    proper: ClassVar[bool] = True
    tempered: ClassVar[bool] = False


@spec
class Pearson(Metric):
    """One minus the correlation: (..., E), (..., E) -> (...).

    `mode` "add" with `eps` is what published code does; "clamp" does not swallow tiny rows.
    """

    eps: float = 1e-8
    mode: distance.Epsilon = "clamp"
    kind: Literal["pearson"] = "pearson"

    def __post_init__(self) -> None:
        require(0 < self.eps < math.inf, "eps", "positive and finite", self.eps)

    def __call__(self, student: Tensor, teacher: Tensor, weight: Tensor | None = None) -> Tensor:
        return distance.pearson(student, teacher, weight, self.eps, self.mode)


@spec
class Cosine(Metric):
    """One minus the cosine: (..., E), (..., E) -> (...)."""

    eps: float = 1e-8
    mode: distance.Epsilon = "clamp"
    kind: Literal["cosine"] = "cosine"

    def __post_init__(self) -> None:
        require(0 < self.eps < math.inf, "eps", "positive and finite", self.eps)

    def __call__(self, student: Tensor, teacher: Tensor, weight: Tensor | None = None) -> Tensor:
        return distance.cosine(student, teacher, weight, self.eps, self.mode)


@spec
class MSE(Metric):
    """Mean squared difference: (..., E), (..., E) -> (...)."""

    kind: Literal["mse"] = "mse"

    def __call__(self, student: Tensor, teacher: Tensor, weight: Tensor | None = None) -> Tensor:
        return distance.mse(student, teacher, weight)


Distance = Annotated[
    KL | ReverseKL | CrossEntropy | JensenShannon | Pearson | Cosine | MSE,
    Field(discriminator="kind"),
]
