"""The instances file of COCO: images, annotations and categories, in JSON."""

from __future__ import annotations

import gc
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillhouse.data.formats.text import read_bytes
from stillhouse.errors import UserError, quote

TABLES = ("images", "annotations", "categories")

# Polygons are nine tenths of the time that it takes to parse the file.
_OUTLINES = re.compile(rb'"segmentation"\s*:\s*(\[[^"{}]*\]|\{[^{}]*\})')


@dataclass(frozen=True)
class Instances:
    """The three tables of a file, without polygons and run lengths."""

    file: Path
    tables: Mapping[str, Sequence[Any]]
    remedy: str  # for values that cannot be right
    spans: Sequence[tuple[int, int]] | None = None  # per annotation, first and last byte + 1
    digest: str = ""  # of the content of the file, where `spans` are known

    def column(self, table: str, key: str) -> list[Any]:
        """One value of each row of a table: a string for names, else an int."""
        kind = str if key in ("file_name", "name") else int
        rows = self.tables[table]
        values = [row.get(key) if isinstance(row, dict) else None for row in rows]
        wrong = next((i for i, value in enumerate(values) if type(value) is not kind), None)
        if wrong is not None:
            raise UserError(
                f"{self.file}: {key} of {table}[{wrong}] must be {kind.__name__}, "
                f"got {quote(values[wrong])}; {self.remedy}"
            )
        return values

    def index(self, table: str, key: str) -> dict[Any, int]:
        """The row of each value of a column, in order; raises a UserError for duplicates."""
        values = self.column(table, key)
        indices = {value: i for i, value in enumerate(values)}
        if len(indices) < len(values):
            first = next(i for i, value in enumerate(values) if indices[value] != i)
            raise UserError(
                f"{self.file}: {table}[{first}] and {table}[{indices[values[first]]}] are both "
                f"{quote(values[first])}; {self.remedy}"
            )
        return indices

    def image_rows(self) -> list[int]:
        """The row of the image of each annotation: -> (M,)."""
        rows = self.index("images", "id")
        places = [rows.get(image, -1) for image in self.column("annotations", "image_id")]
        if -1 in places:
            wrong = places.index(-1)
            raise UserError(
                f"{self.file}: annotations[{wrong}] belongs to image "
                f"{self.tables['annotations'][wrong]['image_id']}, which is not among the "
                f"{len(rows)} images; {self.remedy}"
            )
        return places


def load_instances(file: Path, missing: str, remedy: str, outlines: bool = False) -> Instances:
    """The content of an instances file; with `outlines`, where polygons and run lengths are.

    `missing` is the remedy where the file does not exist, `remedy` where it is damaged. Raises a
    UserError for a file that cannot be parsed or lacks a table.
    """
    data = read_bytes(file, missing)
    places: list[tuple[int, int]] = []

    def number(found: re.Match[bytes]) -> bytes:
        places.append(found.span(1))
        return b'"segmentation": [%d]' % (len(places) - 1)

    try:
        content = _parse(_OUTLINES.sub(number if outlines else b'"segmentation": 0', data))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged or truncated ({error}); {remedy}") from error
    for key in TABLES:
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise UserError(f"{file} has no list of {key}; use the instances file")
    tables = {key: content[key] for key in TABLES}
    if not outlines:
        return Instances(file, tables, remedy)
    spans = [_span(thing, places) for thing in tables["annotations"]]
    return Instances(file, tables, remedy, spans, hashlib.sha256(data).hexdigest())


def _span(thing: Any, places: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The place of the outline of an annotation; empty for one without polygons or run lengths."""
    found = thing.get("segmentation") if isinstance(thing, dict) else None
    return places[found[0]] if isinstance(found, list) else (0, 0)  # other lists were replaced


def _parse(data: bytes) -> Any:
    # Collecting garbage among millions of new objects would take longer than parsing them.
    enabled = gc.isenabled()
    gc.disable()
    try:
        return json.loads(data)
    finally:
        if enabled:
            gc.enable()


def other_year(file: Path, year: int, years: Sequence[int]) -> None:
    """Raise a UserError where only the file of another year of COCO exists."""
    for other in years:
        twin = file.with_name(file.name.replace(str(year), str(other)))
        if other != year and twin.is_file() and not file.is_file():
            raise UserError(f"{file} does not exist, but {twin.name} does; set year={other}")


def first_folder(name: str, places: Sequence[Path]) -> Path:
    """The first of several folders of images that exists."""
    if folder := next((place for place in places if place.is_dir()), None):
        return folder
    listed = " nor ".join(map(str, places))
    absent = f"neither {listed} exists" if len(places) > 1 else f"{listed} does not exist"
    raise UserError(f"{name}: {absent}; put the images there")
