"""Losses of yes-or-no labels, one answer a class.

Each takes logits (N, C) and the share of each class in the image (N, C), from 0 to 1, and gives
losses (N, C), in single precision or better. A share between 0 and 1 has that part of the loss of
a yes and the rest of the loss of a no.
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
    """Binary cross-entropy of each class."""

    kind: Literal["bce"] = "bce"

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        z = upcast(logits)
        return blend(targets, -F.logsigmoid(z), -F.logsigmoid(-z))


@spec
class Asymmetric:
    """Asymmetric loss: easy noes count little, and the easiest nothing (Ridnik et al., 2021).

    A yes costs -(1 - p)^positive log p; a no costs -q^negative log(1 - q), where q = max(p - clip,
    0). The paper has positive 0, so that a yes costs its cross-entropy, and so does the script with
    which the authors train; the default of their code is 1. The paper differentiates both powers;
    with `detach` they are weights without a gradient, as in that script.
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
        yes = -self.focus(F.logsigmoid(-z), self.positive) * F.logsigmoid(z)
        no = -self.focus(wrong, self.negative) * right
        return blend(targets, yes, no)

    def shifted(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Logarithms of q and of 1 - q, both 0 where q is 0 and a no costs nothing."""
        if self.clip == 0:
            return F.logsigmoid(z), F.logsigmoid(-z)
        excess = z.sigmoid() - self.clip
        some = excess > 0
        margin = z.new_full((), math.log(self.clip))
        right = torch.logaddexp(F.logsigmoid(-z), margin)
        return excess.where(some, 1).log(), right.where(some, 0)

    def focus(self, log_wrong: Tensor, power: float) -> Tensor:
        """How much an answer counts, from how wrong it is."""
        weight = (power * log_wrong).exp()
        return weight.detach() if self.detach else weight


@spec
class Focal:
    """Focal loss: what is easy counts little (Lin et al., 2017).

    A yes costs -alpha (1 - p)^gamma log p, a no -(1 - alpha) p^gamma log(1 - p); without an alpha
    both weigh one.
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
        yes, no = -(self.gamma * wrong).exp() * right, -(self.gamma * right).exp() * wrong
        if self.alpha is not None:
            yes, no = self.alpha * yes, (1 - self.alpha) * no
        return blend(targets, yes, no)


LabelLoss = Annotated[BCE | Asymmetric | Focal, Field(discriminator="kind")]


def blend(targets: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """The loss of each label from that of a yes and that of a no: (N, C) thrice -> (N, C)."""
    share = targets.to(yes.dtype)
    return share * yes + (1 - share) * no
