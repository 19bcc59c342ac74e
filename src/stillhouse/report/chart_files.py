"""The charts of a page as SVG files, its images as PNG, and its tables as CSV."""

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
from stillhouse.explain.section import Cell, Chart, ImageGrid, Table
from stillhouse.files import atomic_write, write_text
from stillhouse.report.charts import draw_chart
from stillhouse.report.charts.standalone import standalone_svg
from stillhouse.report.page import Page

MAX_NAME = 80  # letters of a file name, without its suffix

Item = tuple[str, Sequence[Chart], Sequence[Table]]


class FileCounts(NamedTuple):
    """The number of files of each kind."""

    charts: int = 0
    images: int = 0
    tables: int = 0


def check_output_folder(folder: Path) -> None:
    """Make the folder; raises UserError if nothing can be written into it."""
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


def write_chart_files(page: Page, folder: Path) -> FileCounts:
    """Write every chart, image and table of a page, named by its section and title.

    A grid of images comes with a table of their captions.
    """
    check_output_folder(folder)
    taken: set[str] = set()
    charts_written = images_written = tables_written = 0
    for part, charts, tables in page_items(page):
        for chart in charts:
            name = unique_name(part, chart.title, taken)
            if isinstance(chart, ImageGrid):
                images_written += write_images(chart, folder, name)
            else:
                charts_written += write_chart(chart, folder / f"{name}.svg")
        for table in tables:
            write_text(folder / f"{unique_name(part, table.title, taken)}.csv", table_csv(table))
            tables_written += 1
    return FileCounts(charts_written, images_written, tables_written)


def page_items(page: Page) -> Iterator[Item]:
    """The charts and tables of a page by the name of their section."""
    yield "curves", page.curves, ()
    yield "scores", (), page.tables
    if page.costs:
        lines = [asdict(cost) for cost in page.costs]
        rows = tuple(tuple(line.values()) for line in lines)
        yield "costs", (), (Table(tuple(lines[0]), rows),)
    for section in page.sections:
        yield section.name, section.charts, section.tables


def write_chart(chart: Chart, path: Path) -> int:
    """Write one chart; returns the number of files, 0 for a chart without values."""
    assert not isinstance(chart, ImageGrid)
    drawing = draw_chart(chart, "chart")
    if not drawing.svgs:
        return 0
    write_text(path, standalone_svg(chart.title, drawing, page_colours()))
    return 1


def write_images(chart: ImageGrid, folder: Path, name: str) -> int:
    """Write each image, and a table of captions; returns the number of images."""
    names = [f"{name}-{number:02}.png" for number in range(1, len(chart.pictures) + 1)]
    for file, picture in zip(names, chart.pictures, strict=True):
        with atomic_write(folder / file) as out:
            out.write(base64.b64decode(picture.png))
    rows = tuple((f, p.caption, p.alt) for f, p in zip(names, chart.pictures, strict=True))
    write_text(folder / f"{name}.csv", table_csv(Table(("file", "caption", "description"), rows)))
    return len(names)


def table_csv(table: Table) -> str:
    """A table as comma-separated values, with all digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(map(_cells, table.rows))
    return text.getvalue()


def unique_name(part: str, title: str, taken: set[str]) -> str:
    """A file name from a section and a title that is not taken yet."""
    base = "-".join(filter(None, (slug(part), slug(title))))[:MAX_NAME].rstrip("-")
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    taken.add(name)
    return name


def slug(text: str) -> str:
    """Lower-case letters, digits and dashes: `gain-over-control` for `Gain over control, %`."""
    plain = (
        unicodedata.normalize("NFKD", text.replace("'", ""))
        .encode("ascii", "ignore")
        .decode()
        .lower()
    )
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


@cache
def page_colours() -> dict[str, str]:
    """The colours of the light page by CSS variable."""
    style = (Path(__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", style.partition("@media")[0]))


def _cells(row: Iterable[Cell]) -> list[Cell]:
    return ["" if value is None else value for value in row]
