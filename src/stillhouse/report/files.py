"""What a page shows, as files: charts as SVG, pictures as PNG, tables as CSV."""

from __future__ import annotations

import base64
import csv
import io
import re
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import NamedTuple

from stillhouse.errors import UserError
from stillhouse.explain.section import Cell, Chart, Pictures, Table
from stillhouse.files import atomic_write, write_text
from stillhouse.report.charts import draw
from stillhouse.report.charts.alone import alone
from stillhouse.report.model import Page

LONGEST = 80  # letters of a name, without its ending

Part = tuple[str, Sequence[Chart], Sequence[Table]]


class Written(NamedTuple):
    """How many files of each kind."""

    charts: int = 0
    pictures: int = 0
    tables: int = 0


def make_folder(folder: Path) -> None:
    """A folder that can be written into, or a sentence: before what goes into it is worked out."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder for the files")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(
            f"could not write into {folder}: {reason}; name another folder for the files"
        ) from error


def write_files(page: Page, folder: Path) -> Written:
    """Write every chart, picture and table of a page, named by its part and its title.

    Beside several pictures of one title lies a table of what is said of each.
    """
    make_folder(folder)
    taken: set[str] = set()
    found = [0, 0, 0]
    for part, charts, tables in parts(page):
        for chart in charts:
            name = free(part, chart.title, taken)
            if isinstance(chart, Pictures):
                found[1] += write_pictures(chart, folder, name)
            else:
                found[0] += write_chart(chart, folder / f"{name}.svg")
        for table in tables:
            write_text(folder / f"{free(part, table.title, taken)}.csv", csv_of(table))
            found[2] += 1
    return Written(*found)


def parts(page: Page) -> Iterator[Part]:
    """Everything on a page that becomes a file, by the name of its part."""
    yield "curves", page.curves, ()
    yield "scores", (), page.tables
    if page.costs:
        lines = [asdict(cost) for cost in page.costs]
        rows = tuple(tuple(line.values()) for line in lines)
        yield "costs", (), (Table(tuple(lines[0]), rows),)
    for section in page.sections:
        yield section.name, section.charts, section.tables


def write_chart(chart: Chart, path: Path) -> int:
    """Write one chart; 0 where it has no values to draw."""
    assert not isinstance(chart, Pictures)
    drawing = draw(chart, "chart")
    if not drawing.svgs:
        return 0
    write_text(path, alone(chart.title, drawing, colours()))
    return 1


def write_pictures(chart: Pictures, folder: Path, name: str) -> int:
    """Write each picture, and what is said of it."""
    names = [f"{name}-{number:02}.png" for number in range(1, len(chart.pictures) + 1)]
    for file, picture in zip(names, chart.pictures, strict=True):
        with atomic_write(folder / file) as out:
            out.write(base64.b64decode(picture.png))
    said = tuple((f, p.caption, p.alt) for f, p in zip(names, chart.pictures, strict=True))
    write_text(folder / f"{name}.csv", csv_of(Table(("file", "caption", "description"), said)))
    return len(names)


def csv_of(table: Table) -> str:
    """A table as comma-separated values, with all the digits that are known."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(map(_cells, table.rows))
    return text.getvalue()


def free(part: str, title: str, taken: set[str]) -> str:
    """A name for a file of this part and title that no other one has."""
    base = "-".join(filter(None, (slug(part), slug(title))))[:LONGEST].rstrip("-")
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    taken.add(name)
    return name


def slug(text: str) -> str:
    """Small letters, digits and dashes: `Gain over the control, %` as `gain-over-the-control`."""
    plain = (
        unicodedata.normalize("NFKD", text.replace("'", ""))
        .encode("ascii", "ignore")
        .decode()
        .lower()
    )
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


@cache
def colours() -> dict[str, str]:
    """The colours of a page by day, by variable."""
    style = (Path(__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", style.partition("@media")[0]))


def _cells(row: Iterable[Cell]) -> list[Cell]:
    return ["" if value is None else value for value in row]
