"""Images and the class of each in CSV tables."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stillhouse.data.formats.table import (
    CLASSES,
    check_header,
    check_width,
    given_classes,
    read_rows,
    tidy_path,
)
from stillhouse.data.formats.text import require_folder
from stillhouse.data.images import are_readable, file_size, find_missing, read_image
from stillhouse.data.problems import Problem, check_choice, settle
from stillhouse.data.source import Sample, fingerprint_of_files
from stillhouse.errors import UserError, did_you_mean, quote

COLUMNS = ("path", "label")
CHOICES = ("fail", "skip")
REMEDY = "write one line per image under a header with the columns path and label"
MISSING = Problem("missing", "images do not exist", "put them there")
BROKEN = Problem("broken", "images cannot be read", "repair them")


class TableSource:
    """A source of the images that a table lists, decoded on access."""

    def __init__(
        self,
        root: Path,
        name: str,
        classes: Sequence[str],
        rows: Sequence[tuple[str, int]],
        notes: Sequence[str] = (),
    ) -> None:
        self.root, self.name, self.classes = root, name, tuple(classes)
        self.paths = tuple(path for path, _ in rows)
        self.targets: Tensor = torch.tensor([label for _, label in rows])  # (N,)
        self.notes = tuple(notes)

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the paths, sizes and classes of the files, not of their content."""
        sizes = [file_size(self.root / path) for path in self.paths]
        return fingerprint_of_files(
            zip(self.paths, sizes, self.targets.tolist(), strict=True), self.classes
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        return Sample(read_image(self.root / self.paths[index]), int(self.targets[index]), index)


def read_table(
    path: Path,
    split: str,
    *,
    classes: Sequence[object] | None = None,
    missing: str = "fail",
    broken: str = "fail",
) -> TableSource:
    """The images of `path/split.csv`, in the order of its rows.

    The table has the columns `path`, relative to the folder, and `label`. The classes are
    `classes`, else the lines of `classes.txt`, else the sorted labels of the training table.
    """
    check_choice("missing", missing, CHOICES)
    check_choice("broken", broken, CHOICES)
    root = require_folder("csv", path)
    table = read_labels(root / f"{split}.csv")
    names = given_classes(root, classes)
    if names is None:
        training = table if split == "train" else read_labels(root / "train.csv")
        names = tuple(sorted({label for label, _ in training.values()}))
    index = {label: number for number, label in enumerate(names)}
    for label, line in table.values():
        if label not in index:
            raise UserError(
                f"{root / split}.csv, line {line}: {quote(label)} is none of the {len(names)} "
                f"classes; correct it, or list all classes in {root / CLASSES}"
                + did_you_mean(label, names)
            )
    rows = [(image, index[label]) for image, (label, _) in table.items()]
    name = f"{root.name}/{split}"
    rows, absent = leave_out(name, root, rows, MISSING, missing)
    damaged: tuple[str, ...] = ()
    if broken == "skip":  # otherwise, a broken image raises when it is read
        rows, damaged = leave_out(name, root, rows, BROKEN, broken)
    return TableSource(root, name, names, rows, (*absent, *damaged))


def leave_out(
    name: str, root: Path, rows: list[tuple[str, int]], problem: Problem, choice: str
) -> tuple[list[tuple[str, int]], tuple[str, ...]]:
    """The rows without those whose image has a problem, and a note on these."""
    paths = [path for path, _ in rows]
    if problem is MISSING:
        affected = find_missing(root, paths)
    else:
        affected = ~np.array(are_readable([root / path for path in paths]), dtype=bool)
    kept, notes = settle(name, problem, affected, choice, lambda i: str(root / paths[i]))
    if not kept.any():
        raise UserError(f"{name}: none of the {len(paths)} images can be read; copy them again")
    return [row for row, good in zip(rows, kept, strict=True) if good], notes


def read_labels(file: Path) -> dict[str, tuple[str, int]]:
    """The label of each image in a table, and its line; raises UserError for two labels of one."""
    rows = read_rows(file, REMEDY)
    header = [name.strip() for name in next(rows, (0, []))[1]]
    check_header(file, header)
    for column in COLUMNS:
        if column not in header:
            hint = did_you_mean(column, header) or f"; it has {', '.join(header) or 'none'}"
            raise UserError(f"{file} has no column {column!r}{hint}")
    where, what = (header.index(column) for column in COLUMNS)
    labels: dict[str, tuple[str, int]] = {}
    for line, row in rows:
        check_width(file, line, row, header)
        image, label = row[where].strip(), row[what].strip()
        if not image or not label:
            empty = COLUMNS[0] if not image else COLUMNS[1]
            raise UserError(f"{file}, line {line}: the column {empty!r} is empty; fill it in")
        image = tidy_path(image)
        if labels.get(image, (label, 0))[0] != label:
            raise UserError(
                f"{file}, line {line}: {image} has another label in line {labels[image][1]}; keep "
                "one of them, or use csv/labels for several labels of an image"
            )
        labels.setdefault(image, (label, line))
    if not labels:
        raise UserError(f"{file} lists no images; {REMEDY}")
    return labels
