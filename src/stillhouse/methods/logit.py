"""Logit losses of the product space, at the sites of a task."""

from __future__ import annotations

from collections.abc import Mapping

from stillhouse.distributed import gather_site
from stillhouse.methods.base import Method
from stillhouse.objectives.presets.base import LogitPreset, temperature_of
from stillhouse.objectives.targets import leave_out_background
from stillhouse.types import Clock, Lesson, Term, Terms


class Logits(Method):
    """A logit preset at its sites."""

    def __init__(self, preset: LogitPreset) -> None:
        super().__init__()
        self.preset, self.sites = preset, preset.sites
        self.objectives = preset.objectives()
        self.label_share = preset.label_share
        self.needs_labels = "labels" in preset.needs
        self.needs_class = "class" in preset.needs

    def forward(self, lesson: Lesson) -> Terms:
        """One term per site and objective, named `SITE/OBJECTIVE`."""
        ramp = self.preset.ramp_factor(lesson.clock)
        terms: dict[str, Term] = {}
        for place in self.sites:
            site = lesson.sites[place]
            if self.needs_class:
                site = leave_out_background(site)
            for name, objective in self.objectives.items():
                term = objective.at(site)(gather_site(site) if objective.relational else site)
                terms[f"{place}/{name}"] = term._replace(weight=ramp * term.weight)
        return terms

    def gauges(self, clock: Clock) -> Mapping[str, float]:
        """The temperature of the preset, if it has one."""
        return temperature_of(self.preset)
