"""Images and their labels in CSV tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from stillhouse.data.formats.table import (
    CLASSES,
    check_header,
    check_width,
    given_classes,
    read_rows,
    tidy_path,
)
from stillhouse.data.formats.text import require_folder
from stillhouse.data.multilabel.file_source import FileSource, ScannedImages, build_source
from stillhouse.data.multilabel.skip_policy import SkipPolicy
from stillhouse.errors import UserError, did_you_mean, quote

PATH, LABELS = "path", "labels"

_REMEDY = "write one line per image under a header with the columns path and labels"


class _Table(NamedTuple):
    """The content of one table."""

    file: Path
    labels: dict[str, list[str]]  # by image
    columns: tuple[str, ...] | None  # classes with a column of their own; None: a labels column
    repeated: int  # rows of an image that has an earlier row


def read_table(
    path: Path,
    split: str,
    *,
    classes: Sequence[object] | None = None,
    separator: str = ";",
    unlabelled: str = "keep",
    unknown: str = "fail",
    missing: str = "fail",
    broken: str = "fail",
) -> FileSource:
    """The images of `path/split.csv`, in the order of its rows.

    The table has a column `path`, relative to the folder, and either a column `labels` with
    separated names, or a column of 0 and 1 for each class. The classes are `classes`, else the
    lines of `classes.txt`, else the class columns or the sorted labels of the training table.
    Several rows of one image are merged.
    """
    policy = SkipPolicy(unlabelled, unknown, missing, broken)
    if not isinstance(separator, str) or not separator:
        raise UserError(
            f"`separator` must be a non-empty string such as ';', got {quote(separator)}"
        )
    root = require_folder("csv/labels", path)
    given = given_classes(root, classes)
    table = _read(root / f"{split}.csv", given, separator)
    names = given or _classes_of(table if split == "train" else _training(root, separator))
    _check_columns(table, names)
    return build_source(
        ScannedImages(
            name=f"{root.name}/{split}",
            root=root,
            paths=list(table.labels),
            labels=list(table.labels.values()),
            classes=names,
            remedy=f"correct them, or list all classes in {root / CLASSES}",
            notes=_notes(table, f"{root.name}/{split}"),
        ),
        policy,
    )


def _training(root: Path, separator: str) -> _Table:
    file = root / "train.csv"
    if not file.is_file():
        raise UserError(
            f"{file}, which defines the classes, does not exist; list them in {root / CLASSES}"
        )
    return _read(file, None, separator)


def _classes_of(table: _Table) -> tuple[str, ...]:
    if table.columns is not None:
        return table.columns
    if names := sorted({name for labels in table.labels.values() for name in labels}):
        return tuple(names)
    raise UserError(f"{table.file} has no labels in any row; fill in its column {LABELS!r}")


def _check_columns(table: _Table, classes: Sequence[str]) -> None:
    if table.columns is None:
        return
    if missing := [name for name in classes if name not in table.columns]:
        raise UserError(
            f"{table.file} has no column for {len(missing)} of the {len(classes)} classes, "
            f"the first is {quote(missing[0])}; add it{did_you_mean(missing[0], table.columns)}"
        )


def _notes(table: _Table, name: str) -> tuple[str, ...]:
    if not table.repeated:
        return ()
    return (f"{name}: {table.repeated} rows repeat an image; the labels of its rows are merged",)


def _read(file: Path, given: Sequence[str] | None, separator: str) -> _Table:
    rows = read_rows(file, _REMEDY)
    header = next(rows, (0, []))[1]
    columns = _columns(file, header, given)
    places = None if columns is None else [header.index(name) for name in columns]
    where = header.index(PATH)
    labels: dict[str, list[str]] = {}
    repeated = 0
    for number, row in rows:
        check_width(file, number, row, header)
        if not (path := row[where].strip()):
            raise UserError(f"{file}, line {number}: the column {PATH!r} is empty; fill it in")
        if columns is None or places is None:
            names = [name.strip() for name in row[header.index(LABELS)].split(separator)]
        else:
            names = _marked(f"{file}, line {number}", columns, [row[i] for i in places])
        image = tidy_path(path)
        repeated += image in labels
        labels.setdefault(image, []).extend(name for name in names if name)
    if not labels:
        raise UserError(f"{file} lists no images; {_REMEDY}")
    return _Table(file, labels, columns, repeated)


def _columns(file: Path, header: list[str], given: Sequence[str] | None) -> tuple[str, ...] | None:
    """The classes with a column, of those given; None where there is a labels column."""
    header[:] = [name.strip() for name in header]
    check_header(file, header)
    if PATH not in header:
        hint = did_you_mean(PATH, header) or f"; it has {', '.join(header) or 'none'}"
        raise UserError(f"{file} has no column {PATH!r} with the paths of the images{hint}")
    if LABELS in header:
        return None
    columns = [name for name in header if name != PATH and (given is None or name in given)]
    if not columns:
        hint = did_you_mean(LABELS, header)
        raise UserError(
            f"{file} has neither a column {LABELS!r} nor a column per class; add them{hint}"
        )
    return tuple(columns)


def _marked(where: str, columns: Sequence[str], values: Sequence[str]) -> list[str]:
    """The names of the columns whose value is 1."""
    marked = []
    for name, value in zip(columns, values, strict=True):
        if (mark := value.strip()) == "1":
            marked.append(name)
        elif mark != "0":
            raise UserError(
                f"{where}: column {quote(name)} must be 0 or 1, got {mark[:40]!r}; if it is not a "
                f"class, list the classes in {CLASSES}"
            )
    return marked
