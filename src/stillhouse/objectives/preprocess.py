"""First axis: logits -> logits, before the activation."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from stillhouse.objectives.targets import as_class_index
from stillhouse.spec import require, spec


@spec
class Identity:
    """Unchanged logits: (N, C) -> (N, C)."""

    kind: Literal["identity"] = "identity"

    def __call__(self, logits: Tensor, target: Tensor | None) -> Tensor:
        return logits


@spec
class Standardize:
    """Zero mean and unit standard deviation per row (Sun et al., 2024): (N, C) -> (N, C).

    `ddof` is 1 in the authors' code and figures, 0 in the paper's algorithm. A row that is constant
    up to rounding has no gradient, which would be noise / eps.
    """

    ddof: Literal[0, 1] = 1
    eps: float = 1e-7
    kind: Literal["standardize"] = "standardize"

    def __post_init__(self) -> None:
        require(0 < self.eps < math.inf, "eps", "positive and finite", self.eps)

    def __call__(self, logits: Tensor, target: Tensor | None) -> Tensor:
        if not logits.shape[-1]:  # a channel without images
            return logits
        centred = logits - logits.mean(-1, keepdim=True)
        correction = min(self.ddof, logits.shape[-1] - 1)  # a single class has no deviation
        size = logits.detach().abs().amax(-1, keepdim=True)
        spread = centred.detach().square().mean(-1, keepdim=True).sqrt()
        centred = torch.where(spread <= 1e-4 * size, centred.detach(), centred)
        deviation = centred.square().sum(-1, keepdim=True) / (logits.shape[-1] - correction)
        # sqrt has an infinite gradient at 0, but such a row was detached above
        deviation = deviation.clamp(min=torch.finfo(deviation.dtype).tiny).sqrt()
        return centred / (deviation + self.eps)


@spec
class Scale:
    """Logits times a factor, that is a power of the softmax (TTM): (N, C) -> (N, C)."""

    factor: float = 1.0
    kind: Literal["scale"] = "scale"

    def __post_init__(self) -> None:
        require(0 < self.factor < math.inf, "factor", "positive and finite", self.factor)

    def __call__(self, logits: Tensor, target: Tensor | None) -> Tensor:
        return logits * self.factor


@spec
class LabelTemperature:
    """One temperature for the target class, one for the others (ATS): (N, C), (N,) -> (N, C)."""

    labelled: float = 4.0
    others: float = 2.0
    kind: Literal["label_temperature"] = "label_temperature"

    def __post_init__(self) -> None:
        require(0 < self.labelled < math.inf, "labelled", "positive and finite", self.labelled)
        require(0 < self.others < math.inf, "others", "positive and finite", self.others)

    def __call__(self, logits: Tensor, target: Tensor | None) -> Tensor:
        index = as_class_index(target, logits, "label_temperature")
        scaled = logits / self.others
        return scaled.scatter(1, index, logits.gather(1, index) / self.labelled)


Preprocess = Annotated[
    Identity | Standardize | Scale | LabelTemperature, Field(discriminator="kind")
]
