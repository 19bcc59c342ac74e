"""The swatches of a legend."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree as Tree

from stillhouse.report.charts.drawing import LegendEntry

WIDE, NARROW = (0.0, 26.0), (7.0, 12.0)  # left edge and width of a swatch of height 12
SHAPES = {
    "o": "M9.5 6a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z",
    "s": "M10 3h6v6h-6z",
    "^": "M13 2l4 7.5h-8z",
    "D": "M13 1.5l4.5 4.5l-4.5 4.5l-4.5 -4.5z",
}


def swatch(entry: LegendEntry) -> str:
    """The swatch as an `svg` element."""
    left, width = swatch_box(entry)
    drawn = Tree.Element(
        "svg", {"class": "swatch", "viewBox": f"{left:g} 0 {width:g} 12", "aria-hidden": "true"}
    )
    drawn.extend(swatch_shapes(entry))
    return Tree.tostring(drawn, encoding="unicode")


def swatch_box(entry: LegendEntry) -> tuple[float, float]:
    """Left edge and width of a swatch."""
    return WIDE if entry.kind == "line" else NARROW


def swatch_shapes(entry: LegendEntry) -> Iterator[Tree.Element]:
    """The shapes of a swatch: an area, a line, a point, or a line with a point."""
    fill = f"fill:var(--{entry.style.variable})"
    if entry.kind == "area":
        yield Tree.Element("path", {"d": "M8 1h10v10h-10z", "style": fill})
    if entry.kind == "line":
        style = f"stroke:var(--{entry.style.variable});stroke-width:2;fill:none"
        if entry.style.dash:
            style += f";stroke-dasharray:{' '.join(f'{part:g}' for part in entry.style.dash)}"
        yield Tree.Element("path", {"d": "M0 6h26", "style": style})
    if entry.kind == "point" or (entry.kind == "line" and entry.marked):
        yield Tree.Element("path", {"d": SHAPES[entry.style.marker], "style": fill})
