"""Images that a table lists with their labels."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from stillhouse.data.multilabel.album import Album, Found, album
from stillhouse.data.multilabel.policy import Policy
from stillhouse.data.multilabel.text import existing, names_of, text_of
from stillhouse.errors import UserError, did_you_mean

PATH, LABELS, CLASSES = "path", "labels", "classes.txt"

_MEND = "write it, one line an image, under a header with the columns path and labels"


class _Sheet(NamedTuple):
    """What one table says."""

    file: Path
    labels: dict[str, list[str]]  # of each image
    columns: tuple[str, ...] | None  # the classes that have a column; None: there is one of labels
    repeated: int  # rows of an image that an earlier row is of


def table(
    path: Path,
    split: str,
    *,
    classes: Sequence[object] | None = None,
    separator: str = ";",
    unlabelled: str = "keep",
    unknown: str = "fail",
    missing: str = "fail",
    broken: str = "fail",
) -> Album:
    """The images of `path/split.csv`, in the order of its rows.

    It has a column `path`, relative to the folder, and either a column `labels`, with a separator
    between them, or a column of 0 and 1 for each class. The classes are those given, else those of
    `classes.txt`, else the columns of the training table or, sorted, all labels in it. Several rows
    of one image are taken together.
    """
    policy = Policy(unlabelled, unknown, missing, broken)
    if not isinstance(separator, str) or not separator:
        raise UserError(f"separator is {separator!r}, and must be a character or more, such as ';'")
    root = existing("csv/labels", path)
    given = _given(root, classes)
    sheet = _read(root / f"{split}.csv", given, separator)
    names = given or _classes_of(sheet if split == "train" else _training(root, separator))
    _check_columns(sheet, names)
    return album(
        Found(
            name=f"{root.name}/{split}",
            root=root,
            paths=list(sheet.labels),
            labels=list(sheet.labels.values()),
            classes=names,
            mend=f"mend them, or name all classes in {root / CLASSES}",
            notes=_notes(sheet, f"{root.name}/{split}"),
        ),
        policy,
    )


def _given(root: Path, classes: Sequence[object] | None) -> tuple[str, ...] | None:
    """The classes that are said, or those of the file, or None."""
    if classes is None:
        file = root / CLASSES
        return names_of(file, "write a class a line") if file.is_file() else None
    if not isinstance(classes, Sequence) or isinstance(classes, str) or not classes:
        raise UserError(f"classes is {classes!r}, and must be a list of names, such as [cat, dog]")
    names = tuple(str(name) for name in classes)  # a class may be a number
    if double := next((name for i, name in enumerate(names) if name in names[:i]), None):
        raise UserError(f"classes has {double!r} twice; take one of them out")
    return names


def _training(root: Path, separator: str) -> _Sheet:
    file = root / "train.csv"
    if not file.is_file():
        raise UserError(
            f"{file} is not there, and no class is known without it; name them in {root / CLASSES}"
        )
    return _read(file, None, separator)


def _classes_of(sheet: _Sheet) -> tuple[str, ...]:
    if sheet.columns is not None:
        return sheet.columns
    if names := sorted({name for labels in sheet.labels.values() for name in labels}):
        return tuple(names)
    raise UserError(f"{sheet.file} has no label in any row; fill in its column {LABELS!r}")


def _check_columns(sheet: _Sheet, classes: Sequence[str]) -> None:
    if sheet.columns is None:
        return
    if lacking := [name for name in classes if name not in sheet.columns]:
        raise UserError(
            f"{sheet.file} has no column for {len(lacking)} of the {len(classes)} classes, "
            f"{lacking[0]!r} is the first; add it{did_you_mean(lacking[0], sheet.columns)}"
        )


def _notes(sheet: _Sheet, name: str) -> tuple[str, ...]:
    if not sheet.repeated:
        return ()
    return (f"{name}: {sheet.repeated} rows are of an image that had one; they are taken together",)


def _read(file: Path, given: Sequence[str] | None, separator: str) -> _Sheet:
    rows = _rows(file)
    header = next(rows, (0, []))[1]
    columns = _columns(file, header, given)
    places = None if columns is None else [header.index(name) for name in columns]
    where = header.index(PATH)
    labels: dict[str, list[str]] = {}
    repeated = 0
    for number, row in rows:
        if len(row) != len(header):
            raise UserError(
                f"{file}, line {number}: {len(row)} values for {len(header)} columns; put what "
                "holds a comma into quotes"
            )
        if not (path := row[where].strip()):
            raise UserError(f"{file}, line {number}: the column {PATH!r} is empty; fill it in")
        if columns is None or places is None:
            found = [name.strip() for name in row[header.index(LABELS)].split(separator)]
        else:
            found = _marked(f"{file}, line {number}", columns, [row[i] for i in places])
        # Tables written on Windows have backslashes, and "./a.jpg" is "a.jpg".
        image = PurePosixPath(path.replace("\\", "/")).as_posix()
        repeated += image in labels
        labels.setdefault(image, []).extend(name for name in found if name)
    if not labels:
        raise UserError(f"{file} lists no image; {_MEND}")
    return _Sheet(file, labels, columns, repeated)


def _rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows that hold something, with the line where each ends."""
    reader = csv.reader(io.StringIO(text_of(file, _MEND), newline=""), strict=True)
    try:
        for row in reader:
            if any(value.strip() for value in row):
                yield reader.line_num, row
    except csv.Error as error:
        raise UserError(f"{file}, line {reader.line_num}: {error}; mend that row") from error


def _columns(file: Path, header: list[str], given: Sequence[str] | None) -> tuple[str, ...] | None:
    """The classes that have a column, those alone that are given; None: there is one of labels."""
    header[:] = [name.strip() for name in header]
    for i, name in enumerate(header):
        if name in header[:i]:
            raise UserError(f"{file} has two columns {name!r}; rename one of them")
    if PATH not in header:
        hint = did_you_mean(PATH, header) or f"; it has {', '.join(header) or 'none'}"
        raise UserError(f"{file} has no column {PATH!r}, of where the images are{hint}")
    if LABELS in header:
        return None
    columns = [name for name in header if name != PATH and (given is None or name in given)]
    if not columns:
        hint = did_you_mean(LABELS, header)
        raise UserError(
            f"{file} has neither a column {LABELS!r} nor one for each class; add them{hint}"
        )
    return tuple(columns)


def _marked(where: str, columns: Sequence[str], values: Sequence[str]) -> list[str]:
    """The names of the columns that hold 1."""
    found = []
    for name, value in zip(columns, values, strict=True):
        if (mark := value.strip()) == "1":
            found.append(name)
        elif mark != "0":
            raise UserError(
                f"{where}: the column {name!r} holds {mark[:40]!r}, and must hold 0 or 1; where "
                f"it is no class, name those that are in {CLASSES}"
            )
    return found
