"""CSV tables with a header, and the classes that are given beside them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from stillhouse.data.formats.text import read_names, read_text
from stillhouse.errors import UserError, quote

CLASSES = "classes.txt"


def read_rows(file: Path, remedy: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, with the line on which each ends."""
    reader = csv.reader(io.StringIO(read_text(file, remedy), newline=""), strict=True)
    try:
        for row in reader:
            if any(value.strip() for value in row):
                yield reader.line_num, row
    except csv.Error as error:
        raise UserError(f"{file}, line {reader.line_num}: {error}; correct that row") from error


def check_header(file: Path, header: Sequence[str]) -> None:
    """Raise a UserError for two columns of one name."""
    for i, name in enumerate(header):
        if name in header[:i]:
            raise UserError(f"{file} has two columns {quote(name)}; rename one of them")


def check_width(file: Path, number: int, row: Sequence[str], header: Sequence[str]) -> None:
    """Raise a UserError for a row with more or fewer values than there are columns."""
    if len(row) != len(header):
        raise UserError(
            f"{file}, line {number}: {len(row)} values for {len(header)} columns; put values "
            "that contain a comma in quotes"
        )


def tidy_path(path: str) -> str:
    """A relative path in one spelling: with slashes, and without a leading `./`."""
    # Tables written on Windows have backslashes, and "./a.jpg" is "a.jpg".
    return PurePosixPath(path.replace("\\", "/")).as_posix()


def given_classes(root: Path, classes: Sequence[object] | None) -> tuple[str, ...] | None:
    """The classes of the option, else those of `classes.txt`, else None."""
    if classes is None:
        file = root / CLASSES
        return read_names(file, "write one class per line") if file.is_file() else None
    return check_classes(classes)


def check_classes(classes: Sequence[object]) -> tuple[str, ...]:
    """The names of an option `classes`; raises a UserError for another kind or duplicates."""
    if not isinstance(classes, Sequence) or isinstance(classes, str) or not classes:
        raise UserError(
            f"`classes` must be a list of names such as [cat, dog], got {quote(classes)}"
        )
    names = tuple(str(name) for name in classes)  # a class may be a number
    if repeated := next((name for i, name in enumerate(names) if name in names[:i]), None):
        raise UserError(f"`classes` has {quote(repeated)} twice; remove one of them")
    return names
