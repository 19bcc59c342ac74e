"""Second axis: logits -> events, the event axis last.

`space` is what the values of events are: log-probabilities or real numbers. `relational`
activations put the batch on the event axis and need the whole batch. `elementwise` ones leave one
loss per class, which can be weighted.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from stillhouse.functional.divergence import binary_log_probabilities
from stillhouse.objectives.targets import as_class_index, as_multi_hot
from stillhouse.spec import require, spec

Space = Literal["log_prob", "real"]
Across = Literal["row", "batch"]
Temperature = float | Tensor


@spec
class TemperedActivation:
    """Base class of the activations, with a temperature that divides the logits."""

    temperature: float = 1.0
    space: ClassVar[Space] = "log_prob"
    relational: ClassVar[bool] = False
    elementwise: ClassVar[bool] = False

    def __post_init__(self) -> None:
        tau = self.temperature
        require(0 < tau < math.inf, "temperature", "positive and finite", tau)


@spec
class Softmax(TemperedActivation):
    """Log-softmax over classes: (N, C) -> (N, C)."""

    kind: Literal["softmax"] = "softmax"

    def __call__(self, logits: Tensor, target: Tensor | None, temperature: Temperature) -> Tensor:
        return F.log_softmax(logits / temperature, -1)


@spec
class Sigmoid(TemperedActivation):
    """Log-sigmoid of each class and its complement: (N, C) -> (N, C, 2)."""

    kind: Literal["sigmoid"] = "sigmoid"
    elementwise: ClassVar[bool] = True

    def __call__(self, logits: Tensor, target: Tensor | None, temperature: Temperature) -> Tensor:
        return binary_log_probabilities(logits / temperature)


@spec
class TargetVsRest(TemperedActivation):
    """The target class against all others: (N, C) -> (N, 2)."""

    kind: Literal["target_vs_rest"] = "target_vs_rest"

    def __call__(self, logits: Tensor, target: Tensor | None, temperature: Temperature) -> Tensor:
        hit, rest = split_target(logits / temperature, as_class_index(target, logits, self.kind))
        # log-odds are exact where 1 - p would round to 0
        return binary_log_probabilities(hit.squeeze(1) - rest.logsumexp(-1))


@spec
class RestSoftmax(TemperedActivation):
    """Log-softmax over all classes but the target: (N, C) -> (N, C - 1)."""

    kind: Literal["rest_softmax"] = "rest_softmax"

    def __call__(self, logits: Tensor, target: Tensor | None, temperature: Temperature) -> Tensor:
        return F.log_softmax(
            split_target(logits / temperature, as_class_index(target, logits, self.kind))[1], -1
        )


@spec
class SampleSoftmax(TemperedActivation):
    """Log-softmax over the samples of the batch, per class: (N, C) -> (C, N)."""

    kind: Literal["sample_softmax"] = "sample_softmax"
    relational: ClassVar[bool] = True

    def __call__(self, logits: Tensor, target: Tensor | None, temperature: Temperature) -> Tensor:
        return F.log_softmax(logits.mT / temperature, -1)


@spec
class PartialSoftmax(TemperedActivation):
    """Log-softmax over one positive and all negatives, per positive: (N, C) -> (N, C, C).

    Excluded classes, and the rows of negative classes, have log-probability 0 in both networks,
    which adds nothing to a divergence.
    """

    kind: Literal["partial_softmax"] = "partial_softmax"

    def __call__(self, logits: Tensor, target: Tensor | None, temperature: Temperature) -> Tensor:
        hot = as_multi_hot(target, logits, self.kind) > 0
        itself = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
        possible = itself | (hot[:, :, None] & ~hot[:, None, :])
        spread = (logits / temperature)[:, None, :].expand(possible.shape)
        return F.log_softmax(spread.masked_fill(~possible, -math.inf), -1).masked_fill(~possible, 0)


@spec
class RealActivation(TemperedActivation):
    """Base class of real-valued activations, compared along rows or, per class, along the batch."""

    across: Across = "row"
    space: ClassVar[Space] = "real"

    @property
    def relational(self) -> bool:  # type: ignore[override]
        """Whether the event axis is the batch."""
        return self.across == "batch"

    def event_axis_last(self, values: Tensor) -> Tensor:
        """Transpose where events are samples of the batch: (N, C) -> (N, C) or (C, N)."""
        return values.mT if self.across == "batch" else values


@spec
class Probabilities(RealActivation):
    """Softmax probabilities: (N, C) -> (N, C) or (C, N)."""

    kind: Literal["probabilities"] = "probabilities"

    def __call__(self, logits: Tensor, target: Tensor | None, temperature: Temperature) -> Tensor:
        return self.event_axis_last(F.softmax(logits / temperature, -1))


@spec
class RestProbabilities(TemperedActivation):
    """Probabilities of all classes but the target: (N, C) -> (N, C - 1).

    They are renormalised, which is a factor per row and does not change a correlation.
    """

    kind: Literal["rest_probabilities"] = "rest_probabilities"
    space: ClassVar[Space] = "real"

    def __call__(self, logits: Tensor, target: Tensor | None, temperature: Temperature) -> Tensor:
        index = as_class_index(target, logits, self.kind)
        return F.softmax(split_target(logits / temperature, index)[1], -1)


@spec
class Responses(RealActivation):
    """Sigmoid probabilities: (N, C) -> (N, C) or (C, N)."""

    kind: Literal["responses"] = "responses"

    def __call__(self, logits: Tensor, target: Tensor | None, temperature: Temperature) -> Tensor:
        return self.event_axis_last(torch.sigmoid(logits / temperature))


@spec
class Raw(RealActivation):
    """The logits or features themselves: (N, C) -> (N, C) or (C, N)."""

    kind: Literal["raw"] = "raw"

    def __call__(self, logits: Tensor, target: Tensor | None, temperature: Temperature) -> Tensor:
        same = not isinstance(temperature, Tensor) and temperature == 1  # which needs no copy
        return self.event_axis_last(logits if same else logits / temperature)


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


def split_target(logits: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """The target logit and the others: (N, C), (N, 1) -> (N, 1), (N, C - 1)."""
    rest = torch.arange(logits.shape[1] - 1, device=logits.device)
    return logits.gather(1, index), logits.gather(1, rest + (rest >= index))
