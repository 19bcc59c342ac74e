"""A method for each of several teachers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stillhouse.methods.base import Method
from stillhouse.methods.combined import Combined, merge
from stillhouse.types import MEMBERS, Lesson, Site, Terms, Trace, variant


class PerTeacher(Combined):
    """The terms of every member of an ensemble, named by its number, with equal weight.

    The ensemble is tapped at each member, `members.0`, and at the taps of that member's method,
    `members.0.layer4`.
    """

    def __init__(self, methods: Sequence[Method]) -> None:
        super().__init__({str(number): method for number, method in enumerate(methods)})
        self.members = len(methods)
        self.sites = tuple(
            variant(site, tap_of(number))
            for number, method in enumerate(methods)
            for site in method.sites
        )
        self.teacher_taps = merge(
            (tap_of(number), *(tap_of(number, tap) for tap in method.teacher_taps))
            for number, method in enumerate(methods)
        )

    def forward(self, lesson: Lesson) -> Terms:
        """The terms of each teacher, from its own outputs and sites."""
        share = 1 / len(self.methods)
        return {
            f"{number}/{name}": term._replace(weight=share * term.weight)
            for number, method in self.methods.items()
            for name, term in method(lesson_of(lesson, int(number))).items()
        }


def tap_of(number: int, tap: str = "") -> str:
    """A member of the ensemble as a tap, or a tap of that member: `members.0.layer4`."""
    return f"{MEMBERS}.{number}.{tap}" if tap else f"{MEMBERS}.{number}"


def trace_of(ensemble: Trace, number: int) -> Trace:
    """The Trace of one member, its taps by the names that its method uses."""
    prefix = tap_of(number, "")
    taps = {
        name.removeprefix(f"{prefix}."): tap
        for name, tap in ensemble.taps.items()
        if name.startswith(f"{prefix}.")
    }
    return Trace(ensemble.taps[prefix], taps)


def lesson_of(lesson: Lesson, number: int) -> Lesson:
    """The lesson of one member, its sites without their suffix."""
    suffix = variant("", f"{MEMBERS}.{number}")
    sites: dict[str, Site] = {
        name.removesuffix(suffix): site
        for name, site in lesson.sites.items()
        if name.endswith(suffix)
    }
    return replace(lesson, teacher=trace_of(lesson.teacher, number), sites=sites)
