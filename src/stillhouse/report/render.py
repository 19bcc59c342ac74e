"""A page's data -> one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from stillhouse.explain.section import Chart, Picture, Pictures, Table
from stillhouse.files import write_text
from stillhouse.report import score_bars as bars
from stillhouse.report import cost_table as costs
from stillhouse.report import formatting as words
from stillhouse.report.charts import draw
from stillhouse.report.charts.drawing import Drawing
from stillhouse.report.charts.legend import swatch
from stillhouse.report.page import Page

T = TypeVar("T")

LONG = 12  # rows, more of which are folded away
FINE = 160  # pixels, from which on a picture is smooth


@dataclass(frozen=True)
class Entry:
    """One line of the table of contents."""

    anchor: str
    title: str
    depth: int


@dataclass(frozen=True)
class View:
    """One page as the template takes it, alone or among several."""

    page: Page
    prefix: str  # of its anchors
    level: int  # of its headings
    score: bars.Score | None
    costs: costs.Costs


def write_page(page: Page, path: Path) -> Path:
    """Render a page and put it in place."""
    return write_pages([page], path)


def write_pages(pages: Sequence[Page], path: Path) -> Path:
    """Render several pages, one below the other, as one file and put it in place."""
    write_text(path, render(*pages))
    return path


def render(*pages: Page) -> str:
    """One page as HTML, or several in one document."""
    alone = len(pages) == 1
    views = [
        view(page, "" if alone else f"page-{n}-", 2 if alone else 3) for n, page in _counted(pages)
    ]
    script = _source("sort.js")
    return (
        _environment()
        .get_template("report.html")
        .render(
            title=pages[0].title if alone else f"{len(pages)} results",
            views=views,
            contents=[entry for one in views for entry in contents(one)],
            draw=_drawer(),
            script=Markup(script),
            script_hash=_hash(script),
            style=Markup(_source("style.css")),
        )
    )


def view(page: Page, prefix: str = "", level: int = 2) -> View:
    """A page with what the template cannot work out."""
    score = bars.score(page) if page.bars else None
    return View(page, prefix, level, score, costs.table(page.costs))


def contents(view: View) -> list[Entry]:
    """Every part that a page has; of one among several, below its title."""
    page, deeper = view.page, int(bool(view.prefix))
    parts: list[tuple[object, str, str]] = [
        (page.bars, "score", page.headline),
        (page.costs, "costs", "Size and speed"),
        (page.notes, "notes", "Notes"),
        (page.curves, "curves", "Curves"),
        (page.tables, "tables", "Tables"),
        (page.sections, "diagnostics", "Diagnostics"),
        (page.recipe, "recipe", "Recipe"),
        (page.environment, "environment", "Environment"),
        (page.again, "again", "How to reproduce"),
    ]
    found = [Entry(f"{view.prefix}top", page.title, 0)] if deeper else []
    for held, anchor, title in parts:
        if held:
            found.append(Entry(view.prefix + anchor, title, deeper))
        if anchor == "diagnostics":
            found += [
                Entry(f"{view.prefix}diagnosis-{n}", section.title, deeper + 1)
                for n, section in _counted(page.sections)
            ]
    return found


def aligned(table: Table) -> list[bool]:
    """Whether each column holds numbers, which stand to the right."""
    columns = [[row[i] for row in table.rows if i < len(row)] for i in range(len(table.columns))]
    return [_numbers(column) for column in columns]


def size(picture: Picture) -> tuple[int, int] | None:
    """Width and height of a PNG, as its first bytes say."""
    try:
        head = base64.b64decode(picture.png[:32], validate=True)
        width, height = struct.unpack(">II", head[16:24])
    except (binascii.Error, struct.error):
        return None
    return width, height


def _numbers(column: Sequence[Any]) -> bool:
    known = [value for value in column if value is not None]
    return bool(known) and all(words.numeric(value) for value in known)


def _counted(things: Sequence[T]) -> Iterable[tuple[int, T]]:
    return enumerate(things, 1)


def _drawer() -> Callable[[Chart], Drawing | None]:
    """What draws the charts of a document, each under a name of its own."""
    numbers = count(1)

    def drawn(chart: Chart) -> Drawing | None:
        return None if isinstance(chart, Pictures) else draw(chart, f"chart-{next(numbers)}")

    return drawn


@cache
def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader("stillhouse.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    found.filters |= {"cell": words.cell, "aligned": aligned, "pixels": size, "svg": Markup}
    found.filters |= {"swatch": swatch}
    found.globals |= {"long": LONG, "fine": FINE}
    return found


@cache
def _source(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """The name under which the page allows this script, and no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
