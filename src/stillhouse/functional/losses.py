"""Binary label losses, one per class, for multi-label classification.

Each takes logits (N, C) and targets (N, C) from 0 to 1, and returns losses (N, C), in float32 or
better. A target between 0 and 1 mixes the losses of a positive and a negative label.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from stillhouse.functional.dtype import upcast
from stillhouse.spec import require, spec


@spec
class BCE:
    """Binary cross-entropy per class."""

    kind: Literal["bce"] = "bce"

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        z = upcast(logits)
        return mix_labels(targets, -F.logsigmoid(z), -F.logsigmoid(-z))


@spec
class Asymmetric:
    """Asymmetric loss, which down-weights easy negatives (Ridnik et al., 2021).

    The loss of a positive label is -(1 - p)^positive log p, that of a negative one
    -q^negative log(1 - q) with q = max(p - clip, 0). The paper and the authors' training script
    have positive 0, the cross-entropy; the default of their code is 1. The paper differentiates
    both powers; with `detach` they are weights without a gradient, as in the script.
    """

    negative: float = 4.0
    positive: float = 1.0
    clip: float = 0.05
    detach: bool = False
    kind: Literal["asymmetric"] = "asymmetric"

    def __post_init__(self) -> None:
        for name in ("negative", "positive"):
            power = getattr(self, name)
            require(0 <= power < math.inf, name, "non-negative and finite", power)
        require(0 <= self.clip < 1, "clip", "in [0, 1)", self.clip)

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        z = upcast(logits)
        wrong, right = self.shifted(z)
        positive = -self.focus(F.logsigmoid(-z), self.positive) * F.logsigmoid(z)
        negative = -self.focus(wrong, self.negative) * right
        return mix_labels(targets, positive, negative)

    def shifted(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """log q and log(1 - q), both 0 where q is 0: (N, C) -> 2 x (N, C)."""
        if self.clip == 0:
            return F.logsigmoid(z), F.logsigmoid(-z)
        excess = z.sigmoid() - self.clip
        counts = excess > 0
        margin = z.new_full((), math.log(self.clip))
        right = torch.logaddexp(F.logsigmoid(-z), margin)
        return excess.where(counts, 1).log(), right.where(counts, 0)

    def focus(self, log_wrong: Tensor, power: float) -> Tensor:
        """The weight of a prediction, a power of its error."""
        weight = (power * log_wrong).exp()
        return weight.detach() if self.detach else weight


@spec
class Focal:
    """Focal loss, which down-weights easy labels (Lin et al., 2017).

    The loss of a positive label is -alpha (1 - p)^gamma log p, that of a negative one
    -(1 - alpha) p^gamma log(1 - p); without `alpha` both have weight 1.
    """

    gamma: float = 2.0
    alpha: float | None = 0.25
    kind: Literal["focal"] = "focal"

    def __post_init__(self) -> None:
        require(0 <= self.gamma < math.inf, "gamma", "non-negative and finite", self.gamma)
        alpha = self.alpha
        require(alpha is None or 0 < alpha < 1, "alpha", "in (0, 1) or null", alpha)

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        z = upcast(logits)
        right, wrong = F.logsigmoid(z), F.logsigmoid(-z)
        positive = -(self.gamma * wrong).exp() * right
        negative = -(self.gamma * right).exp() * wrong
        if self.alpha is not None:
            positive, negative = self.alpha * positive, (1 - self.alpha) * negative
        return mix_labels(targets, positive, negative)


LabelLoss = Annotated[BCE | Asymmetric | Focal, Field(discriminator="kind")]


def mix_labels(targets: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Interpolate between the losses of a positive and a negative label: 3 x (N, C) -> (N, C)."""
    share = targets.to(positive.dtype)
    return share * positive + (1 - share) * negative
