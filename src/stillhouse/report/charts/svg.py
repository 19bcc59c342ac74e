"""A matplotlib figure as SVG for the inside of a page: small, in CSS variables, without links."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING
from xml.etree import ElementTree as Tree

from stillhouse.report.charts.styles import PLACEHOLDERS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Element = Tree.Element

_DROPPED = {"metadata", "style", "clipPath", "title"}
_KEPT = {"d", "x", "y", "href", "transform", "preserveAspectRatio"}
_FONT = ("font", "stroke-dashoffset")
_NUMBER = re.compile(r"-?\d+\.\d+(e-?\d+)?")
_COLOUR = re.compile("|".join(PLACEHOLDERS))
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff\ud800-\udfff]")


def inline_svg(figure: Figure, ident: str, label: str, below: Sequence[Element] = ()) -> str:
    """The figure as one `svg` element; `label` is its text for screen readers."""
    root = Tree.fromstring(_CONTROL.sub("", _matplotlib_svg(figure)))
    names = _names(root, ident)
    width, height = (f"{side:g}" for side in figure.get_size_inches() * 72)
    drawn = Element(
        "svg",
        {"viewBox": f"0 0 {width} {height}", "role": "img", "aria-label": _CONTROL.sub("", label)},
    )
    drawn.extend(below)
    for child in root:
        drawn.extend(_tidy(child, names, 1))
    return Tree.tostring(drawn, encoding="unicode")


def _matplotlib_svg(figure: Figure) -> str:
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    file = io.StringIO()
    with warnings.catch_warnings():
        # The browser draws the text, so a glyph missing in the font of matplotlib does not matter.
        warnings.simplefilter("ignore", UserWarning)
        figure.savefig(file, format="svg", metadata=no_metadata)
    return file.getvalue()


def _names(root: Element, ident: str) -> dict[str, str]:
    """A new id for each element that another one refers to."""
    targets = [
        value.removeprefix("#")
        for node in root.iter()
        for key, value in node.attrib.items()
        if key.endswith("href") and value.startswith("#")
    ]
    return {old: f"{ident}-{n}" for n, old in enumerate(dict.fromkeys(targets), 1)}


def _tidy(node: Element, names: dict[str, str], digits: int) -> Iterator[Element]:
    """The same element without what a page does not need."""
    tag = _local(node.tag)
    if tag in _DROPPED:
        return
    kept = Element(tag, dict(_attributes(node, names, digits)))
    kept.text = node.text if tag == "text" else None
    for child in node:
        # A marker is defined once near its origin, where one digit would be too coarse.
        kept.extend(_tidy(child, names, 2 if tag == "defs" else digits))
    _share_style(kept)
    if tag == "g" and not kept.attrib:
        yield from kept
    elif len(kept) or tag not in ("g", "defs"):
        yield kept


def _attributes(node: Element, names: dict[str, str], digits: int) -> Iterator[tuple[str, str]]:
    for key, value in node.attrib.items():
        key = _local(key)
        if key == "id" and value in names:
            yield key, names[value]
        elif key == "href" and value.startswith("#"):
            yield key, f"#{names[value[1:]]}"
        elif key == "style":
            if style := _style(value):
                yield key, style
        elif key in _KEPT and not value.startswith("rotate(-0 "):
            yield key, _rounded(value, digits)


def _share_style(group: Element) -> None:
    """Move a style that all marks of a group share to the group."""
    styles = {child.get("style") for child in group}
    if group.tag == "g" and len(group) > 1 and len(styles) == 1 and "style" not in group.attrib:
        (style,) = styles
        if style and all(child.tag == "use" for child in group):
            group.set("style", style)
            for child in group:
                del child.attrib["style"]


def _style(text: str) -> str:
    parts = [part.strip() for part in text.split(";")]
    kept = ";".join(part.replace(": ", ":") for part in parts if not part.startswith(_FONT))
    return _COLOUR.sub(lambda match: PLACEHOLDERS[match[0]], kept)


def _rounded(text: str, digits: int) -> str:
    def short(match: re.Match[str]) -> str:
        return f"{float(match[0]):.{digits}f}".rstrip("0").rstrip(".")

    return re.sub(r"\s*([A-Za-z])\s*", r"\1", _NUMBER.sub(short, text)).strip()


def _local(name: str) -> str:
    return name.rpartition("}")[2]
