"""Logit losses of the product space, at the sites of a task."""

from __future__ import annotations

from collections.abc import Mapping

from stillhouse.distributed import gather_site, sum_over_ranks, world_size
from stillhouse.methods.base import Method
from stillhouse.objectives.large import compare_pieces
from stillhouse.objectives.logit import LogitObjective
from stillhouse.objectives.presets.base import LogitPreset, temperature_of
from stillhouse.objectives.targets import leave_out_background
from stillhouse.types import Clock, Lesson, Sites, Term, Terms


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
        sites = Sites.of(lesson.sites)
        terms: dict[str, Term] = {}
        for place in self.sites:
            found = compare(self.objectives, sites, place, self.needs_labels, self.needs_class)
            for name in self.objectives:
                terms[f"{place}/{name}"] = found[name]._replace(weight=ramp * found[name].weight)
        return terms

    def gauges(self, clock: Clock) -> Mapping[str, float]:
        """The temperature of the preset, if it has one."""
        return temperature_of(self.preset)


def compare(
    objectives: Mapping[str, LogitObjective],
    sites: Sites,
    place: str,
    needs_labels: bool,
    needs_class: bool,
) -> Terms:
    """The terms of objectives at a site, in pieces where it is large.

    With `needs_class`, rows without a class are left out. Relations are those of the rows of all
    ranks.
    """
    pieces, terms = sites.pieces.get(place), {}
    # images of ranks differ in number and size, and have to agree on how relations are made
    agreed = world_size() > 1 and any(one.relational for one in objectives.values())
    if pieces is not None and (pieces.large or agreed):
        pieces = pieces.labelled() if needs_class else pieces
        terms = compare_pieces(objectives, pieces, sum_over_ranks)
    rest = {name: value for name, value in objectives.items() if name not in terms}
    if rest:
        site = leave_out_background(sites[place]) if needs_class else sites[place]
        for name, objective in rest.items():
            given = gather_site(site, needs_labels) if objective.relational else site
            terms[name] = objective.at(site)(given)
    return terms
