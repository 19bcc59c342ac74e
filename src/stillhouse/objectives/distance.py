"""Third axis: events of student and teacher -> losses, reduced over the event axis.

`proper` distances are 0 where student and teacher agree; the others have their minimum there.
The gradient of `tempered` ones scales as 1 / temperature^2, which `kappa` compensates.
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
    """Base class of the distances between distributions."""

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
    """Jensen-Shannon divergence, the mean KL to the mixture: (..., E), (..., E) -> (...)."""

    kind: Literal["jensen_shannon"] = "jensen_shannon"

    def __call__(self, student: Tensor, teacher: Tensor, weight: Tensor | None = None) -> Tensor:
        return divergence.jensen_shannon(student, teacher)


@spec
class RealDistance:
    """Base class of the distances between real vectors."""

    accepts: ClassVar[Space] = "real"
    proper: ClassVar[bool] = True
    tempered: ClassVar[bool] = False


@spec
class Pearson(RealDistance):
    """One minus the Pearson correlation: (..., E), (..., E) -> (...).

    `mode` "add" with `eps` is what published code does; "clamp" also works for tiny rows.
    """

    eps: float = 1e-8
    mode: distance.Epsilon = "clamp"
    kind: Literal["pearson"] = "pearson"

    def __post_init__(self) -> None:
        require(0 < self.eps < math.inf, "eps", "positive and finite", self.eps)

    def __call__(self, student: Tensor, teacher: Tensor, weight: Tensor | None = None) -> Tensor:
        return distance.pearson(student, teacher, weight, self.eps, self.mode)


@spec
class Cosine(RealDistance):
    """One minus the cosine similarity: (..., E), (..., E) -> (...)."""

    eps: float = 1e-8
    mode: distance.Epsilon = "clamp"
    kind: Literal["cosine"] = "cosine"

    def __post_init__(self) -> None:
        require(0 < self.eps < math.inf, "eps", "positive and finite", self.eps)

    def __call__(self, student: Tensor, teacher: Tensor, weight: Tensor | None = None) -> Tensor:
        return distance.cosine(student, teacher, weight, self.eps, self.mode)


@spec
class MeanSquaredError(RealDistance):
    """Mean squared difference: (..., E), (..., E) -> (...)."""

    kind: Literal["mse"] = "mse"

    def __call__(self, student: Tensor, teacher: Tensor, weight: Tensor | None = None) -> Tensor:
        return distance.mse(student, teacher, weight)


@spec
class DiceDistance(RealDistance):
    """One minus the overlap, twice the product over the squares: (..., E), (..., E) -> (...).

    The sum of both squares is at least `eps`.
    """

    eps: float = 1e-3
    kind: Literal["dice"] = "dice"

    def __post_init__(self) -> None:
        require(0 < self.eps < math.inf, "eps", "positive and finite", self.eps)

    def __call__(self, student: Tensor, teacher: Tensor, weight: Tensor | None = None) -> Tensor:
        return distance.dice_distance(student, teacher, weight, self.eps)


Distance = Annotated[
    KL
    | ReverseKL
    | CrossEntropy
    | JensenShannon
    | Pearson
    | Cosine
    | MeanSquaredError
    | DiceDistance,
    Field(discriminator="kind"),
]
