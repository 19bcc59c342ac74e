"""What every preset has: objectives by name, a warm-up, and how much the labels count beside it."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Literal

from torch import Tensor

from stillhouse.objectives.card import Card
from stillhouse.objectives.logit import LogitObjective
from stillhouse.spec import spec
from stillhouse.types import Clock, Site

Objectives = dict[str, LogitObjective]
Variant = Literal["paper", "reference"]


@spec
class Preset:
    """A published loss: (student, teacher, target=None, weight=None) -> a scalar."""

    warmup: float = field(default=0.0, kw_only=True)  # epochs, as min(epoch / warmup, 1) from 1
    label_weight: float | None = field(default=None, kw_only=True)  # None: what the paper gives
    card: ClassVar[Card]
    labels: ClassVar[float] = 1.0  # what the paper weighs the label loss with

    def __post_init__(self) -> None:
        if self.warmup < 0:
            raise ValueError(f"warmup must not be negative, and is {self.warmup}")
        self.objectives()  # an option that makes no point of the space is refused here

    def objectives(self) -> Objectives:
        """The points of the product space whose weighted sum this loss is."""
        raise NotImplementedError

    def ramp(self, clock: Clock) -> float:
        """What the weights are multiplied by at this time."""
        return min(1.0, clock.epoch / self.warmup) if self.warmup > 0 else 1.0

    @property
    def label_share(self) -> float:
        """The weight of the label loss beside this one."""
        return self.labels if self.label_weight is None else self.label_weight

    def site(
        self, student: Tensor, teacher: Tensor, target: Tensor | None, weight: Tensor | None
    ) -> Site:
        """The rows that are compared: (N, C), (N, C), (N,) or (N, C), (N,) -> Site."""
        return Site(student, teacher, target, weight)

    def __call__(
        self,
        student: Tensor,
        teacher: Tensor,
        target: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The weighted loss, ready for backward: (N, C), (N, C), (N,) or (N, C), (N,) -> ()."""
        site = self.site(student, teacher, target, weight)
        terms = [objective(site) for objective in self.objectives().values()]
        loss: Tensor = sum(term.weight * term.mean() for term in terms)  # type: ignore[assignment]
        return loss


def temperature_of(preset: Preset) -> dict[str, float]:
    """The temperature of a preset by that name; empty where it has none."""
    found = getattr(preset, "temperature", None)
    return {} if found is None else {"temperature": float(found)}
