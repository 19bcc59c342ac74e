"""What every preset has: objectives by name, a warm-up, and how much the labels count beside it."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from torch import Tensor

from stillhouse.objectives.logit import LogitObjective
from stillhouse.objectives.published import Published
from stillhouse.spec import spec
from stillhouse.types import Site

Objectives = dict[str, LogitObjective]
Variant = Literal["paper", "reference"]


@spec
class Preset(Published):
    """A published loss: (student, teacher, target=None, weight=None) -> a scalar."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.objectives()  # an option that makes no point of the space is refused here

    def objectives(self) -> Objectives:
        """The points of the product space whose weighted sum this loss is."""
        raise NotImplementedError

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


@spec
class LogitPreset(Preset):
    """A published loss on logits, at one or more sites of a task."""

    sites: tuple[str, ...] = field(default=("class",), kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sites(self.sites)


def check_sites(sites: tuple[str, ...]) -> None:
    """Refuse a method that compares the networks nowhere."""
    if not sites:
        raise ValueError("sites must name at least one site, such as class")


def temperature_of(preset: Preset) -> dict[str, float]:
    """The temperature of a preset by that name; empty where it has none."""
    found = getattr(preset, "temperature", None)
    return {} if found is None else {"temperature": float(found)}
