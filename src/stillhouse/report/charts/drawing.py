"""What a chart becomes."""

from __future__ import annotations

from dataclasses import dataclass

from stillhouse.report.charts.styles import Look


@dataclass(frozen=True)
class Key:
    """One entry of a legend."""

    name: str
    look: Look
    kind: str = "line"  # or area, or point
    marked: bool = False  # whether a line carries markers


@dataclass(frozen=True)
class Drawing:
    """SVG that may stand inside HTML, its legend, and a sentence for who sees neither."""

    svgs: tuple[str, ...] = ()  # none where there was nothing to draw, one a panel of a cloud
    keys: tuple[Key, ...] = ()
    note: str = ""  # below the chart, for every reader


NOTHING = Drawing(note="No values to draw.")
