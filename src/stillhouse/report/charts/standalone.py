"""A drawing as a standalone SVG file with title, panels, legend and note.

The colours are those of the light page, as values, because many editors do not read CSS variables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from xml.etree import ElementTree as Tree

from stillhouse.report.charts.canvas import FONT, LETTER
from stillhouse.report.charts.drawing import Drawing, LegendEntry
from stillhouse.report.charts.legend import swatch_box, swatch_shapes
from stillhouse.report.formatting import truncate

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
MARGIN, GAP = 12.0, 16.0
MIN_WIDTH = 400.0
ROW = 18.0  # height of a line of text
HEADING = 13.0
_VARIABLE = re.compile(r"var\(--([\w-]+)\)")

Element = Tree.Element


def standalone_svg(title: str, drawing: Drawing, colours: Mapping[str, str]) -> str:
    """The text of the file; `colours` by CSS variable."""
    panels = [Tree.fromstring(svg) for svg in drawing.svgs]
    sizes = [_size(panel) for panel in panels]
    width = max(MIN_WIDTH, sum(w for w, _ in sizes) + GAP * max(0, len(sizes) - 1))
    root = Element("svg", {"role": "img", "aria-label": title})
    top = MARGIN + ROW
    root.append(
        _text(title, MARGIN, top - 5, HEADING, "var(--ink)", int(width / LETTER), bold=True)
    )
    left = MARGIN
    for panel, (wide, _) in zip(panels, sizes, strict=True):
        root.append(_moved(panel, left, top))
        left += wide + GAP
    top += max((high for _, high in sizes), default=0.0) + 8
    top = _legend(root, drawing.legend, width, top)
    if drawing.note:
        top += ROW
        room = int(width / LETTER)
        root.append(_text(drawing.note, MARGIN, top - 5, FONT, "var(--soft)", room))
    return _serialise(root, width + 2 * MARGIN, top + MARGIN, colours)


def _size(panel: Element) -> tuple[float, float]:
    _, _, width, height = map(float, panel.attrib["viewBox"].split())
    return width, height


def _moved(panel: Iterable[Element], left: float, top: float) -> Element:
    group = Element("g", {"transform": f"translate({left:g} {top:g})"})
    group.extend(node for node in panel if node.get("class") != "dark")
    for node in group.iter("image"):
        node.attrib.pop("class", None)
        node.set("style", "image-rendering:pixelated")
    return group


def _legend(root: Element, entries: Sequence[LegendEntry], width: float, top: float) -> float:
    """Add swatches and names in rows; returns the bottom edge."""
    left, first = MARGIN, True
    for entry in entries:
        name = truncate(entry.name, 40)
        begin, wide = swatch_box(entry)
        whole = wide + 7 + LETTER * len(name) + GAP
        if first or left + whole > MARGIN + width + GAP:
            left, top, first = MARGIN, top + ROW, False
        group = Element("g", {"transform": f"translate({left - begin:g} {top - 15:g})"})
        group.extend(swatch_shapes(entry))
        root.append(group)
        root.append(_text(name, left + wide + 7, top - 5, FONT, "var(--soft)", 40))
        left += whole
    return top


def _text(
    text: str, x: float, y: float, size: float, colour: str, most: int, bold: bool = False
) -> Element:
    style = f"fill:{colour};font-size:{size:g}px" + (";font-weight:600" if bold else "")
    element = Element("text", {"x": f"{x:g}", "y": f"{y:g}", "style": style})
    element.text = truncate(text, most)
    return element


def _serialise(root: Element, width: float, height: float, colours: Mapping[str, str]) -> str:
    root.attrib |= {
        "xmlns": SVG,
        "xmlns:xlink": XLINK,
        "width": f"{width:g}",
        "height": f"{height:g}",
        "viewBox": f"0 0 {width:g} {height:g}",
        "style": f"font-family:sans-serif;font-size:{FONT:g}px;stroke-linejoin:round",
    }
    paper = {"width": "100%", "height": "100%", "style": "fill:var(--paper)"}
    root.insert(0, Element("rect", paper))
    for node in root.iter():
        if "style" in node.attrib:
            node.attrib["style"] = _VARIABLE.sub(lambda v: colours[v[1]], node.attrib["style"])
        if "href" in node.attrib:  # the attribute that all SVG readers know
            node.attrib["xlink:href"] = node.attrib.pop("href")
    return '<?xml version="1.0" encoding="utf-8"?>\n' + Tree.tostring(root, encoding="unicode")
