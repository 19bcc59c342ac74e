"""Curriculum temperature: a temperature that is trained adversarially (Li Z. et al., 2023)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from stillhouse.distributed import gather_site
from stillhouse.functional.dtype import upcast
from stillhouse.functional.gradient import reverse_gradient
from stillhouse.methods.base import Method
from stillhouse.methods.setting import AtSites, Setting
from stillhouse.objectives.card import Card
from stillhouse.objectives.presets.softmax import DKD, KD
from stillhouse.objectives.presets.standardized import LSKD
from stillhouse.objectives.targets import leave_out_background
from stillhouse.spec import BY_NAME, require, spec
from stillhouse.types import Clock, Lesson, Site, Terms

CTKDBase = Annotated[KD | DKD | LSKD, Field(discriminator="name"), BY_NAME]
HIDDEN = 64  # width of the network that predicts a temperature for each sample


@spec
class CTKD(AtSites):
    """The loss of `base` at a temperature that is trained to maximise it.

    `mode` "global" has one temperature, "instance" predicts one for each sample from both networks'
    logits. The strength of the adversary rises over `loops` epochs.
    """

    base: CTKDBase = KD(weight=0.9)
    mode: Literal["global", "instance"] = "global"
    lowest: float = 1.0
    span: float = 20.0
    initial: float = 1.0  # before the sigmoid: the first temperature is lowest + span * 0.731
    loops: float = 10.0  # epochs; below 1 a fraction of the run
    name: Literal["ctkd"] = "ctkd"
    dense: ClassVar[bool] = True
    card: ClassVar[Card] = Card(
        "Curriculum temperature",
        "min over the student, max over theta: L_base at tau = lowest + span * sigmoid(theta), its "
        "gradient to theta times -lambda, lambda = (1 - cos(pi min(e, loops) / loops)) / 2",
        "Li Z. et al.: Curriculum temperature for knowledge distillation, AAAI 2023",
        ("logits",),
        "one trained number, or a network of two layers on the logits; optimiser group `critic`",
        "The temperature tends to reach a bound; it is logged as a gauge. With lskd as base it "
        "replaces lskd's own temperature.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("lowest", "span", "loops"):
            require(getattr(self, name) > 0, name, "positive", getattr(self, name))
        relational = any(point.relational for point in self.base.objectives().values())
        if relational and self.mode == "instance":
            raise ValueError(
                "mode instance needs a base that compares each sample by itself; set mode=global"
            )

    @property
    def label_share(self) -> float:
        """The weight of the label loss: `label_weight`, or that of the base."""
        return self.base.label_share if self.label_weight is None else self.label_weight

    def strength(self, clock: Clock) -> float:
        """The factor on the reversed gradient at this step, from 0 to 1."""
        done = clock.progress / self.loops if self.loops < 1 else clock.epoch / self.loops
        return (1 - math.cos(math.pi * min(1.0, done))) / 2

    def build(self, setting: Setting) -> Method:
        """The method; for "instance", with a network for the number of classes of the student."""
        classes = setting.student_shapes(["logits"])["logits"][1]
        one_for_all = self.mode == "global"
        critic = GlobalTemperature(self.initial) if one_for_all else InstanceTemperature(classes)
        return CurriculumTemperature(self, critic)


class GlobalTemperature(nn.Module):
    """One trained number for all samples."""

    def __init__(self, initial: float) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(initial))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The number, before the sigmoid: (N, C), (N, C) -> ()."""
        return self.theta


class InstanceTemperature(nn.Module):
    """A number for each sample, predicted from the logits of both networks."""

    def __init__(self, classes: int, initial: float = 1.0) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(2 * classes, HIDDEN), nn.Linear(HIDDEN, 1)
        nn.init.normal_(self.outer.weight, std=1e-2)
        nn.init.constant_(self.outer.bias, initial)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The numbers, before the sigmoid: (N, C), (N, C) -> (N, 1)."""
        logits = torch.cat((teacher, student), 1).to(self.inner.weight.dtype)
        raw: Tensor = self.outer(self.inner(logits).relu())
        return raw


class CurriculumTemperature(Method):
    """The base's loss at the temperature of a critic, which gets the reversed gradient."""

    latest: Tensor

    def __init__(self, spec: CTKD, critic: nn.Module) -> None:
        super().__init__()
        self.spec, self.critic, self.sites = spec, critic, spec.sites
        self.objectives = spec.base.objectives()
        self.label_share = spec.label_share
        self.needs_labels = "labels" in spec.base.needs
        self.needs_class = "class" in spec.base.needs
        # the mean temperature of the last batch, for logging
        start = spec.lowest + spec.span / (1 + math.exp(-spec.initial))
        self.register_buffer("latest", torch.tensor(start))

    def temperature(self, site: Site, clock: Clock) -> Tensor:
        """The temperature at a site: () for all rows, or (N, 1) with one for each."""
        with torch.autocast(site.student.device.type, enabled=False):
            raw = self.critic(upcast(site.student.detach()), upcast(site.teacher.detach()))
            tau = reverse_gradient(raw, self.spec.strength(clock)).sigmoid()
        return self.spec.lowest + self.spec.span * tau

    def forward(self, lesson: Lesson) -> Terms:
        """One term per site and objective of the base, named `SITE/OBJECTIVE`."""
        ramped = self.spec if self.spec.warmup or self.spec.ramp else self.spec.base
        ramp = ramped.ramp_factor(lesson.clock)
        terms = {}
        for place in self.sites:
            site = lesson.sites[place]
            if self.needs_class:
                site = leave_out_background(site)
            tau = self.temperature(site, lesson.clock)
            if len(site.student):
                self.latest = tau.detach().mean()
            for name, objective in self.objectives.items():
                rows = gather_site(site, self.needs_labels) if objective.relational else site
                term = objective.at(site)(rows, temperature=tau)
                terms[f"{place}/{name}"] = term._replace(weight=ramp * term.weight)
        return terms

    def gauges(self, clock: Clock) -> Mapping[str, float]:
        """The mean temperature of the last batch."""
        return {"temperature": float(self.latest)}

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        """The critic's parameters, in the group `critic`."""
        return {"critic": self.critic.parameters()}
