"""The result of drawing a chart."""

from __future__ import annotations

from dataclasses import dataclass

from stillhouse.report.charts.styles import SeriesStyle


@dataclass(frozen=True)
class LegendEntry:
    """One entry of a legend."""

    name: str
    style: SeriesStyle
    kind: str = "line"  # or area, or point
    marked: bool = False  # whether a line has markers


@dataclass(frozen=True)
class Drawing:
    """SVG for the inside of HTML, its legend, and a note below it."""

    svgs: tuple[str, ...] = ()  # one per panel; none where there is nothing to draw
    legend: tuple[LegendEntry, ...] = ()
    note: str = ""


EMPTY_DRAWING = Drawing(note="No values to draw.")
