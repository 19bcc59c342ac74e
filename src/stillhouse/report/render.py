"""The content of pages as one self-contained HTML file."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from stillhouse.explain.guard import failure_sentence
from stillhouse.explain.phrases import metric_name
from stillhouse.explain.section import CaptionedImage, Chart, ImageGrid, Table
from stillhouse.files import write_text
from stillhouse.report.charts import draw_chart
from stillhouse.report.charts.drawing import Drawing
from stillhouse.report.charts.legend import swatch
from stillhouse.report.cost_table import CostTable, cost_table
from stillhouse.report.formatting import format_cell, is_numeric
from stillhouse.report.page import Page
from stillhouse.report.score_bars import ScoreChart, score_chart

T = TypeVar("T")

MAX_ROWS = 12  # of a table that is not folded
SMOOTH = 160  # pixels: a narrower image is scaled without smoothing


@dataclass(frozen=True)
class ContentsEntry:
    """One line of the table of contents."""

    anchor: str
    title: str
    depth: int


@dataclass(frozen=True)
class Link:
    """A file beside the page."""

    name: str
    address: str


@dataclass(frozen=True)
class PageView:
    """One page for the template, alone or among several."""

    page: Page
    prefix: str  # of its anchors
    level: int  # of its headings
    headline: str  # the metric of the bars
    scores: ScoreChart | None
    costs: CostTable
    links: tuple[Link, ...] = ()


def write_page(page: Page, path: Path) -> Path:
    """Render a page and write it."""
    return write_pages([page], path)


def write_pages(pages: Sequence[Page], path: Path) -> Path:
    """Render several pages, one below the other, and write them as one file."""
    write_text(path, render(*pages, folder=path.parent))
    return path


def render(*pages: Page, folder: Path | None = None) -> str:
    """One page as HTML, or several in one document; links to files are relative to `folder`."""
    single = len(pages) == 1
    views = [
        page_view(page, "" if single else f"page-{n}-", 2 if single else 3, folder)
        for n, page in _numbered(pages)
    ]
    script = _source("sort.js")
    return (
        _environment()
        .get_template("report.html")
        .render(
            title=pages[0].title if single else f"{len(pages)} results",
            views=views,
            contents=[entry for view in views for entry in table_of_contents(view)],
            draw=_chart_drawer(),
            script=Markup(script),
            script_hash=_script_hash(script),
            style=Markup(_source("style.css")),
        )
    )


def page_view(page: Page, prefix: str = "", level: int = 2, folder: Path | None = None) -> PageView:
    """A page with what is computed for the template."""
    scores = score_chart(page) if page.bars else None
    headline = f"{metric_name(page.headline)} on {page.split}"
    links = tuple(
        Link(file.name, quote(Path(os.path.relpath(file, folder)).as_posix()))
        for file in page.files
        if folder is not None
    )
    return PageView(page, prefix, level, headline, scores, cost_table(page.costs), links)


def table_of_contents(view: PageView) -> list[ContentsEntry]:
    """The parts of a page; one among several starts with its title."""
    page, depth = view.page, int(bool(view.prefix))
    parts: list[tuple[object, str, str]] = [
        (page.bars, "score", view.headline),
        (page.costs, "costs", "Size and speed"),
        (page.notes, "notes", "Notes"),
        (page.curves, "curves", "Curves"),
        (page.tables, "tables", "Tables"),
        (page.sections, "diagnostics", "Diagnostics"),
        (page.usage, "usage", "Load the student"),
        (page.recipe, "recipe", "Recipe"),
        (page.environment, "environment", "Environment"),
        (page.again, "again", "How to reproduce"),
    ]
    entries = [ContentsEntry(f"{view.prefix}top", page.title, 0)] if depth else []
    for content, anchor, title in parts:
        if content:
            entries.append(ContentsEntry(view.prefix + anchor, title, depth))
        if anchor == "diagnostics":
            entries += [
                ContentsEntry(f"{view.prefix}diagnosis-{n}", section.heading, depth + 1)
                for n, section in _numbered(page.sections)
            ]
    return entries


def numeric_columns(table: Table) -> list[bool]:
    """Whether each column has numbers only, which are right-aligned."""
    columns = [[row[i] for row in table.rows if i < len(row)] for i in range(len(table.columns))]
    return [_all_numeric(column) for column in columns]


def png_size(image: CaptionedImage) -> tuple[int, int] | None:
    """Width and height of a PNG from its header; None if it is damaged."""
    try:
        head = base64.b64decode(image.png[:32], validate=True)
        width, height = struct.unpack(">II", head[16:24])
    except (binascii.Error, struct.error):
        return None
    return width, height


def _all_numeric(column: Sequence[Any]) -> bool:
    known = [value for value in column if value is not None]
    return bool(known) and all(is_numeric(value) for value in known)


def _numbered(items: Sequence[T]) -> Iterable[tuple[int, T]]:
    return enumerate(items, 1)


def _chart_drawer() -> Callable[[Chart], Drawing | None]:
    """A function that draws the charts of one document, each with ids of its own."""
    numbers = count(1)

    def draw(chart: Chart) -> Drawing | None:
        if isinstance(chart, ImageGrid):
            return None
        try:
            return draw_chart(chart, f"chart-{next(numbers)}")
        except Exception as error:
            return Drawing(note=failure_sentence("The chart", error, "drawn"))

    return draw


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("stillhouse.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {
        "cell": format_cell,
        "numeric_columns": numeric_columns,
        "png_size": png_size,
        "svg": Markup,
        "swatch": swatch,
    }
    environment.globals |= {"max_rows": MAX_ROWS, "smooth": SMOOTH}
    return environment


@cache
def _source(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


def _script_hash(script: str) -> str:
    """The hash by which the content security policy allows this script only."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
