"""The base class of presets: objectives by name, a warm-up, and the weight of the label loss."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Literal

from torch import Tensor

from stillhouse.objectives.logit import LogitObjective
from stillhouse.objectives.published import Published
from stillhouse.spec import spec
from stillhouse.types import Site

Objectives = dict[str, LogitObjective]
Variant = Literal["paper", "reference"]


@spec
class Preset(Published):
    """A published loss: (student, teacher, target=None, weight=None) -> ()."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.objectives()  # raises for options that make no valid objective

    def objectives(self) -> Objectives:
        """The objectives, by name, whose weighted sum is this loss."""
        raise NotImplementedError

    def site(
        self, student: Tensor, teacher: Tensor, target: Tensor | None, weight: Tensor | None
    ) -> Site:
        """The site that is compared: (N, C), (N, C), (N,) or (N, C), (N,) -> Site."""
        return Site(student, teacher, target, weight)

    def __call__(
        self,
        student: Tensor,
        teacher: Tensor,
        target: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The weighted loss: (N, C), (N, C), (N,) or (N, C), (N,) -> ()."""
        site = self.site(student, teacher, target, weight)
        terms = [objective(site) for objective in self.objectives().values()]
        loss: Tensor = sum(term.weight * term.mean() for term in terms)  # type: ignore[assignment]
        return loss


@spec
class LogitPreset(Preset):
    """A published loss on logits, at one or more sites of a task."""

    sites: tuple[str, ...] = field(default=("class",), kw_only=True)
    dense: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sites(self.sites)


def check_sites(sites: tuple[str, ...]) -> None:
    """Refuse a method that compares the networks nowhere."""
    if not sites:
        raise ValueError("sites must name at least one site, such as class")


def temperature_of(preset: Preset) -> dict[str, float]:
    """`{"temperature": value}`, empty for a preset without one."""
    temperature = getattr(preset, "temperature", None)
    return {} if temperature is None else {"temperature": float(temperature)}
