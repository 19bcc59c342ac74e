"""The class of each object of mask files: in a CSV table, or the same for all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stillhouse.data.formats.table import check_header, check_width, read_rows, tidy_path
from stillhouse.data.images import open_image
from stillhouse.data.instances.mask_files import Meaning, distinct_values
from stillhouse.data.objects.annotations import IntArray
from stillhouse.data.problems import BoolArray
from stillhouse.data.semantic.values import UNKNOWN, ClassArray, ValueArray, read_values
from stillhouse.errors import UserError, did_you_mean
from stillhouse.files import open_regular

TABLE = "instances.csv"
COLUMNS = ("mask", "value", "class")
CROWD = "crowd"  # an optional column
LARGEST = (1 << 24) - 1

_REMEDY = "write one object per line under the header mask,value,class"
_COLOURS = ("RGB", "RGBA")  # modes of Pillow


class ListedMask(NamedTuple):
    """The objects of one mask."""

    values: IntArray  # (K,) increasing
    labels: IntArray  # (K,)
    crowd: BoolArray  # (K,)


@dataclass(frozen=True, eq=False)
class ListedObjects:
    """The objects of all masks in a folder, by the path of the mask below it."""

    folder: Path
    masks: Mapping[str, ListedMask]

    @cached_property
    def recipe(self) -> Mapping[str, object]:
        """All that it says of values, for digests."""
        digest = hashlib.sha256()
        for name, parts in sorted(self.masks.items()):
            digest.update(name.encode())
            for part in parts:
                digest.update(part.tobytes())
        return {"objects": digest.hexdigest()}

    def read(self, path: Path) -> ValueArray:
        """The numbers of a mask file: -> (H, W)."""
        return read_numbers(path)

    def classes_in(self, path: Path) -> ClassArray:
        """The class of each object of a mask file: -> (K,)."""
        return self.find(path, distinct_values(self.read(path))).labels.astype(np.int16)

    def find(self, path: Path, values: IntArray) -> Meaning:
        """The objects that are listed for a mask file: (K,) -> (K,) each."""
        own = self.masks.get(path.relative_to(self.folder).as_posix())
        if own is None:
            return Meaning(np.full(len(values), UNKNOWN), np.zeros(len(values), dtype=bool))
        place = np.searchsorted(own.values, values).clip(max=len(own.values) - 1)
        labels = np.where(own.values[place] == values, own.labels[place], UNKNOWN)
        return Meaning(labels, own.crowd[place])


@dataclass(frozen=True)
class OneClass:
    """Every number is an object of the only class."""

    @property
    def recipe(self) -> Mapping[str, object]:
        """All that it says of values, for digests."""
        return {"objects": "one class"}

    def read(self, path: Path) -> ValueArray:
        """The numbers of a mask file: -> (H, W)."""
        return read_numbers(path)

    def classes_in(self, path: Path) -> ClassArray:
        """The class of each object of a mask file: -> (K,)."""
        return np.zeros(len(distinct_values(self.read(path))), dtype=np.int16)

    def find(self, path: Path, values: IntArray) -> Meaning:
        """Objects of the only class: (K,) -> (K,) each."""
        return Meaning(np.zeros(len(values), dtype=np.int64), np.zeros(len(values), dtype=bool))


def read_numbers(path: Path) -> ValueArray:
    """The number of the object of each pixel of a mask file: -> (H, W).

    A grey value, an index of a palette, or red + 256 green + 65536 blue.
    """
    if not _has_colours(path):
        return read_values(path, colours=False)
    values = read_values(path, colours=True)  # red * 65536 + green * 256 + blue
    joined: ValueArray = values >> 16 | values & 0xFF00 | (values & 255) << 16
    return joined


def _has_colours(path: Path) -> bool:
    try:
        with open_regular(path) as file, open_image(file) as image:
            return image.mode in _COLOURS
    except Exception:  # `read_values` says what is wrong
        return False


def read_objects_table(file: Path, classes: Sequence[str]) -> dict[str, ListedMask]:
    """The objects of each mask of a table with the columns mask, value, class and perhaps crowd."""
    index = {name: i for i, name in enumerate(classes)}
    found: dict[str, dict[int, tuple[int, bool]]] = {}
    for where, (mask, value, name, crowd) in _rows(file):
        if name not in index:
            hint = did_you_mean(name, index) or f"; known: {', '.join(index)}"
            raise UserError(f"{where}: the class {name!r} is not known{hint}")
        if not value.isdecimal() or not 0 < int(value) <= LARGEST:
            raise UserError(
                f"{where}: the value must be a whole number from 1 to {LARGEST}, got {value!r}"
            )
        if crowd not in ("", "0", "1"):
            raise UserError(f"{where}: crowd must be 0 or 1, got {crowd!r}")
        own = found.setdefault(tidy_path(mask), {})
        if int(value) in own:
            raise UserError(f"{where}: {mask} has the value {value} twice; remove one of them")
        own[int(value)] = index[name], crowd == "1"
    return {mask: _listed(own) for mask, own in found.items()}


def _listed(own: Mapping[int, tuple[int, bool]]) -> ListedMask:
    values = sorted(own)
    labels, crowd = zip(*(own[value] for value in values), strict=True)
    return ListedMask(np.array(values), np.array(labels), np.array(crowd, dtype=bool))


def names_in_table(file: Path, otherwise: Path) -> tuple[str, ...]:
    """The sorted classes of a table; `otherwise` is where they could be listed."""
    if not file.is_file():
        raise UserError(
            f"neither {otherwise} nor {file} exists; list the classes in the first, or the class "
            "of each object in the second"
        )
    names = {name for _, (_, _, name, _) in _rows(file)}
    if not names:
        raise UserError(f"{file} lists no objects; {_REMEDY}")
    return tuple(sorted(names))


def _rows(file: Path) -> Iterator[tuple[str, list[str]]]:
    """The place of each row, and its mask, value, class and crowd, which is "" without a column."""
    rows = read_rows(file, _REMEDY)
    header = [column.strip().lower() for column in next(rows, (0, []))[1]]
    check_header(file, header)
    for column in COLUMNS:
        if column not in header:
            raise UserError(f"{file} has no column {column!r}; {_REMEDY}")
    places = [header.index(column) for column in COLUMNS]
    for number, row in rows:
        check_width(file, number, row, header)
        crowd = row[header.index(CROWD)].strip() if CROWD in header else ""
        yield f"{file}, line {number}", [*(row[place].strip() for place in places), crowd]
