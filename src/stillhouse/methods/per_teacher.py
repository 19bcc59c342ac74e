"""A method for each of several teachers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stillhouse.methods.base import Method
from stillhouse.methods.combined import Combined, unique_names
from stillhouse.types import MEMBERS, Lesson, Site, Terms, Trace, variant


class PerTeacher(Combined):
    """The terms of one method per member of an ensemble, `0/TERM`, with equal weights.

    The ensemble is tapped at each member, `members.0`, and at the taps of that member's method,
    `members.0.layer4`.
    """

    def __init__(self, methods: Sequence[Method]) -> None:
        super().__init__({str(number): method for number, method in enumerate(methods)})
        self.members = len(methods)
        self.sites = tuple(
            variant(site, member_tap(number))
            for number, method in enumerate(methods)
            for site in method.sites
        )
        self.teacher_taps = unique_names(
            (member_tap(number), *(member_tap(number, tap) for tap in method.teacher_taps))
            for number, method in enumerate(methods)
        )

    def forward(self, lesson: Lesson) -> Terms:
        """The terms of each teacher, from its own outputs and sites."""
        factor = 1 / len(self.methods)
        return {
            f"{number}/{name}": term._replace(weight=factor * term.weight)
            for number, method in self.methods.items()
            for name, term in method(member_lesson(lesson, int(number))).items()
        }


def member_tap(number: int, tap: str = "") -> str:
    """The tap of a member's output, `members.0`, or of one of its taps, `members.0.layer4`."""
    return f"{MEMBERS}.{number}.{tap}" if tap else f"{MEMBERS}.{number}"


def member_trace(ensemble: Trace, number: int) -> Trace:
    """The Trace of one member, with its taps by the names that its method uses."""
    prefix = member_tap(number, "")
    taps = {
        name.removeprefix(f"{prefix}."): tap
        for name, tap in ensemble.taps.items()
        if name.startswith(f"{prefix}.")
    }
    return Trace(ensemble.taps[prefix], taps)


def member_lesson(lesson: Lesson, number: int) -> Lesson:
    """The lesson of one member, with its sites without the suffix `@members.0`."""
    suffix = variant("", f"{MEMBERS}.{number}")
    sites: dict[str, Site] = {
        name.removesuffix(suffix): site
        for name, site in lesson.sites.items()
        if name.endswith(suffix)
    }
    return replace(lesson, teacher=member_trace(lesson.teacher, number), sites=sites)
