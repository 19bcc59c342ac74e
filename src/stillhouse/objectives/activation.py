"""Second axis: logits -> events, the event axis last.

`space` says what an event is given as. `relational` activations put the batch on the event axis,
which therefore must be whole. `elementwise` ones leave one loss a class, which can be weighted.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from stillhouse.functional.divergence import binary_log_probabilities
from stillhouse.objectives.targets import labels, multi_hot
from stillhouse.spec import require, spec

Space = Literal["log_prob", "real"]
Across = Literal["row", "batch"]
Temperature = float | Tensor


@spec
class Tempered:
    """What every activation has: a temperature that divides the logits."""

    temperature: float = 1.0
    space: ClassVar[Space] = "log_prob"
    relational: ClassVar[bool] = False
    elementwise: ClassVar[bool] = False

    def __post_init__(self) -> None:
        tau = self.temperature
        require(0 < tau < math.inf, "temperature", "positive and finite", tau)


@spec
class Softmax(Tempered):
    """Which class: (N, C) -> (N, C)."""

    kind: Literal["softmax"] = "softmax"

    def __call__(self, logits: Tensor, target: Tensor | None, temperature: Temperature) -> Tensor:
        return F.log_softmax(logits / temperature, -1)


@spec
class Sigmoid(Tempered):
    """Yes or no, for each class apart: (N, C) -> (N, C, 2)."""

    kind: Literal["sigmoid"] = "sigmoid"
    elementwise: ClassVar[bool] = True

    def __call__(self, logits: Tensor, target: Tensor | None, temperature: Temperature) -> Tensor:
        return binary_log_probabilities(logits / temperature)


@spec
class TargetVsRest(Tempered):
    """The labelled class, or any other: (N, C) -> (N, 2)."""

    kind: Literal["target_vs_rest"] = "target_vs_rest"

    def __call__(self, logits: Tensor, target: Tensor | None, temperature: Temperature) -> Tensor:
        hit, rest = split(logits / temperature, labels(target, logits, self.kind))
        # log-odds keep both halves exact where 1 - p would round to 0
        return binary_log_probabilities(hit.squeeze(1) - rest.logsumexp(-1))


@spec
class RestSoftmax(Tempered):
    """Which class, once the labelled one is ruled out: (N, C) -> (N, C - 1)."""

    kind: Literal["rest_softmax"] = "rest_softmax"

    def __call__(self, logits: Tensor, target: Tensor | None, temperature: Temperature) -> Tensor:
        return F.log_softmax(split(logits / temperature, labels(target, logits, self.kind))[1], -1)


@spec
class SampleSoftmax(Tempered):
    """Which sample of the batch, for each class: (N, C) -> (C, N)."""

    kind: Literal["sample_softmax"] = "sample_softmax"
    relational: ClassVar[bool] = True

    def __call__(self, logits: Tensor, target: Tensor | None, temperature: Temperature) -> Tensor:
        return F.log_softmax(logits.mT / temperature, -1)


@spec
class PartialSoftmax(Tempered):
    """Which class, of one positive and all negatives, for each positive apart: (N, C) -> (N, C, C).

    What is ruled out in both networks is written as certain in both, which no divergence counts;
    so is all of a row that belongs to a negative class.
    """

    kind: Literal["partial_softmax"] = "partial_softmax"

    def __call__(self, logits: Tensor, target: Tensor | None, temperature: Temperature) -> Tensor:
        hot = multi_hot(target, logits, self.kind) > 0
        own = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
        possible = own | (hot[:, :, None] & ~hot[:, None, :])
        spread = (logits / temperature)[:, None, :].expand(possible.shape)
        return F.log_softmax(spread.masked_fill(~possible, -math.inf), -1).masked_fill(~possible, 0)


@spec
class Numbers(Tempered):
    """What gives plain numbers, compared along each row or, for each class, along the batch."""

    across: Across = "row"
    space: ClassVar[Space] = "real"

    @property
    def relational(self) -> bool:  # type: ignore[override]
        """Whether the event axis is the batch."""
        return self.across == "batch"

    def turn(self, values: Tensor) -> Tensor:
        """Put the axis that is compared last: (N, C) -> (N, C) or (C, N)."""
        return values.mT if self.across == "batch" else values


@spec
class Probabilities(Numbers):
    """Softmax as plain numbers: (N, C) -> (N, C) or (C, N)."""

    kind: Literal["probabilities"] = "probabilities"

    def __call__(self, logits: Tensor, target: Tensor | None, temperature: Temperature) -> Tensor:
        return self.turn(F.softmax(logits / temperature, -1))


@spec
class RestProbabilities(Tempered):
    """Probabilities of all but the labelled class, as plain numbers: (N, C) -> (N, C - 1).

    They are those of a softmax without it: a factor a row, which no correlation sees.
    """

    kind: Literal["rest_probabilities"] = "rest_probabilities"
    space: ClassVar[Space] = "real"

    def __call__(self, logits: Tensor, target: Tensor | None, temperature: Temperature) -> Tensor:
        index = labels(target, logits, self.kind)
        return F.softmax(split(logits / temperature, index)[1], -1)


@spec
class Responses(Numbers):
    """Sigmoid as plain numbers: (N, C) -> (N, C) or (C, N)."""

    kind: Literal["responses"] = "responses"

    def __call__(self, logits: Tensor, target: Tensor | None, temperature: Temperature) -> Tensor:
        return self.turn(torch.sigmoid(logits / temperature))


@spec
class Raw(Numbers):
    """The logits or features themselves: (N, C) -> (N, C) or (C, N)."""

    kind: Literal["raw"] = "raw"

    def __call__(self, logits: Tensor, target: Tensor | None, temperature: Temperature) -> Tensor:
        return self.turn(logits / temperature)


Activation = Annotated[
    Softmax
    | Sigmoid
    | TargetVsRest
    | RestSoftmax
    | SampleSoftmax
    | PartialSoftmax
    | Probabilities
    | RestProbabilities
    | Responses
    | Raw,
    Field(discriminator="kind"),
]


def split(logits: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """The labelled logit (N, 1) and the others (N, C - 1)."""
    rest = torch.arange(logits.shape[1] - 1, device=logits.device)
    return logits.gather(1, index), logits.gather(1, rest + (rest >= index))
