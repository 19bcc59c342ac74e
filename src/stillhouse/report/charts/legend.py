"""The mark of a series in a legend."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree as Tree

from stillhouse.report.charts.drawing import Key

WIDE, NARROW = (0.0, 26.0), (7.0, 12.0)  # left and width of a mark, which is 12 high
SHAPES = {
    "o": "M9.5 6a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z",
    "s": "M10 3h6v6h-6z",
    "^": "M13 2l4 7.5h-8z",
    "D": "M13 1.5l4.5 4.5l-4.5 4.5l-4.5 -4.5z",
}


def swatch(key: Key) -> str:
    """The mark as an `svg` element of its own."""
    left, width = box(key)
    drawn = Tree.Element(
        "svg", {"class": "swatch", "viewBox": f"{left:g} 0 {width:g} 12", "aria-hidden": "true"}
    )
    drawn.extend(marks(key))
    return Tree.tostring(drawn, encoding="unicode")


def box(key: Key) -> tuple[float, float]:
    """Where a mark begins, and how wide it is."""
    return WIDE if key.kind == "line" else NARROW


def marks(key: Key) -> Iterator[Tree.Element]:
    """What the mark is drawn of: an area, a line, a point, or a line with a point on it."""
    fill = f"fill:var(--{key.look.variable})"
    if key.kind == "area":
        yield Tree.Element("path", {"d": "M8 1h10v10h-10z", "style": fill})
    if key.kind == "line":
        style = f"stroke:var(--{key.look.variable});stroke-width:2;fill:none"
        if key.look.dash:
            style += f";stroke-dasharray:{' '.join(f'{part:g}' for part in key.look.dash)}"
        yield Tree.Element("path", {"d": "M0 6h26", "style": style})
    if key.kind == "point" or (key.kind == "line" and key.marked):
        yield Tree.Element("path", {"d": SHAPES[key.look.marker], "style": fill})
