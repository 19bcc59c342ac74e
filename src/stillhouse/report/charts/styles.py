"""How a series is told from the others: a colour that follows the page, a dash and a marker.

A chart is drawn in stand-in colours, each of which becomes a CSS variable of the page: so one
drawing serves a light page, a dark one and paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

HUES = tuple(f"hue-{n}" for n in range(1, 9))
VARIABLES = ("ink", "paper", "soft", "line", "teacher", "control", "student", *HUES)
ROLES = {"teacher": "teacher", "control": "control", "none": "control", "student": "student"}
DASHES: tuple[tuple[float, ...], ...] = ((), (6, 2.5), (2, 2), (7, 2, 1.5, 2))
MARKERS = "os^D"


@dataclass(frozen=True)
class Look:
    """What one series looks like."""

    variable: str  # of the page's style
    dash: tuple[float, ...] = ()
    marker: str = "o"

    @property
    def colour(self) -> str:
        """The stand-in that a chart is drawn with."""
        return stand_in(self.variable)


ROLE_LOOKS = {
    "teacher": Look("teacher", DASHES[1], "s"),
    "control": Look("control", DASHES[2], "^"),
    "student": Look("student"),
}


def role(name: str) -> str:
    """The part that a network of this name plays, empty where the name says nothing of it."""
    return ROLES.get(name.strip().casefold(), "")


def looks(names: Sequence[str]) -> list[Look]:
    """A look for each: fixed for the three parts, and never the same for the first 32 others."""
    found, others = [], 0
    for name in names:
        if part := role(name):
            found.append(ROLE_LOOKS[part])
        else:
            found.append(other(others))
            others += 1
    return found


def other(index: int) -> Look:
    """The look of the series that is number `index` among those without a part."""
    kind = (index + index // len(HUES)) % len(DASHES)
    return Look(HUES[index % len(HUES)], DASHES[kind], MARKERS[kind])


def stand_in(variable: str) -> str:
    """The colour to draw with for a variable of the page's style."""
    return f"#f00d{VARIABLES.index(variable):02x}"


STAND_INS = {stand_in(variable): f"var(--{variable})" for variable in VARIABLES}
