"""The style of a series: a colour of the page, a dash pattern and a marker.

A chart is drawn in placeholder colours. Each placeholder is replaced by a CSS variable, so that one
drawing serves the light page, the dark page and print.
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
class SeriesStyle:
    """The style of one series."""

    variable: str  # CSS variable of the colour
    dash: tuple[float, ...] = ()
    marker: str = "o"

    @property
    def colour(self) -> str:
        """The placeholder colour to draw with."""
        return placeholder(self.variable)


ROLE_STYLES = {
    "teacher": SeriesStyle("teacher", DASHES[1], "s"),
    "control": SeriesStyle("control", DASHES[2], "^"),
    "student": SeriesStyle("student"),
}


def role(name: str) -> str:
    """The role of a network by its name: teacher, control or student; empty for other names."""
    return ROLES.get(name.strip().casefold(), "")


def series_styles(names: Sequence[str]) -> list[SeriesStyle]:
    """A style per name: fixed for the three roles, different for the first 32 others."""
    styles, others = [], 0
    for name in names:
        if known := role(name):
            styles.append(ROLE_STYLES[known])
        else:
            styles.append(numbered_style(others))
            others += 1
    return styles


def numbered_style(index: int) -> SeriesStyle:
    """The style of the series number `index` among those without a role."""
    kind = (index + index // len(HUES)) % len(DASHES)
    return SeriesStyle(HUES[index % len(HUES)], DASHES[kind], MARKERS[kind])


def placeholder(variable: str) -> str:
    """The colour to draw with for a CSS variable."""
    return f"#f00d{VARIABLES.index(variable):02x}"


PLACEHOLDERS = {placeholder(variable): f"var(--{variable})" for variable in VARIABLES}
