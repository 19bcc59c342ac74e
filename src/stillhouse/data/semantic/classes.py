"""Classes of masks by value or by colour, from options or from files beside the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stillhouse.batches import IGNORE
from stillhouse.data.formats.table import (
    CLASSES,
    check_classes,
    check_header,
    check_width,
    given_classes,
    read_rows,
)
from stillhouse.data.semantic.values import ClassTable, Colour, join_colour, split_colour
from stillhouse.errors import UserError, did_you_mean

COLOURS = "classes.csv"
COLUMNS = ("name", "r", "g", "b")
LARGEST = 65535  # of 16 bits

_REMEDY = "write a class per line under the header name,r,g,b"


def read_classes(
    root: Path,
    classes: Sequence[object] | None,
    colours: Mapping[str, Sequence[int]] | None,
    ignore: object,
) -> tuple[tuple[str, ...], ClassTable]:
    """The names of the classes, and the table of their values or colours.

    Without colours, the names stand for the values from 0 on that are not ignored. Colours that are
    not among `classes` are ignored.
    """
    table = read_colours(root / COLOURS) if colours is None else check_colours(colours)
    if table:
        known = tuple(table) if classes is None else check_classes(classes)
        return _by_colour(known, table, ignore)
    names = given_classes(root, classes)
    if names is None:
        raise UserError(
            f"{root} has neither {CLASSES} nor {COLOURS}; list the classes there, or with "
            "classes=[NAME, ...]"
        )
    return _by_value(names, ignore)


def _by_value(names: tuple[str, ...], ignore: object) -> tuple[tuple[str, ...], ClassTable]:
    ignored = _listed(IGNORE if ignore is None else ignore)
    values = {value for value in ignored if _is_byte(value, LARGEST)}
    for word in ignored:
        if not _is_byte(word, LARGEST):
            _check_name(word, names, "a value or the name of a class")
    free = [value for value in range(len(names) + len(values)) if value not in values]
    kept = tuple(name for name in names if name not in ignored)
    index = {name: i for i, name in enumerate(kept)}
    found = {value: index.get(name, IGNORE) for value, name in zip(free, names)}  # noqa: B905
    return kept, ClassTable({**found, **dict.fromkeys(values, IGNORE)})


def _by_colour(
    classes: tuple[str, ...], table: Mapping[str, Colour], ignore: object
) -> tuple[tuple[str, ...], ClassTable]:
    one = isinstance(ignore, list | tuple) and len(ignore) == 3 and all(map(_is_byte, ignore))
    ignored = [ignore] if one else _listed([] if ignore is None else ignore)
    found = {join_colour(colour): IGNORE for colour in table.values()}
    for word in ignored:
        if isinstance(word, list | tuple):
            found[join_colour(_colour("`ignore`", word))] = IGNORE
        else:
            _check_name(word, tuple(table), "a colour [r, g, b] or the name of one")
    kept = tuple(name for name in classes if name not in ignored)
    for i, name in enumerate(kept):
        _check_name(name, tuple(table), "a name of the table of colours", "`classes`")
        found[join_colour(table[name])] = i
    return kept, ClassTable(found, colours=True)


def _listed(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _check_name(word: object, names: Sequence[str], what: str, option: str = "`ignore`") -> None:
    if word not in names:
        hint = did_you_mean(str(word), names) or f"; known: {', '.join(names)}"
        raise UserError(f"{option} has {word!r}, which is not {what}{hint}")


def read_colours(file: Path) -> dict[str, Colour]:
    """The colour of each name of a CSV table with the columns name, r, g, b; empty without it."""
    if not file.is_file():
        return {}
    rows = read_rows(file, _REMEDY)
    header = [column.strip().lower() for column in next(rows, (0, []))[1]]
    check_header(file, header)
    for column in COLUMNS:
        if column not in header:
            raise UserError(f"{file} has no column {column!r}; {_REMEDY}")
    places = [header.index(column) for column in COLUMNS]
    found: dict[str, Colour] = {}
    for number, row in rows:
        check_width(file, number, row, header)
        name, *numbers = (row[place].strip() for place in places)
        where = f"{file}, line {number}"
        if not name or name in found:
            raise UserError(f"{where}: the name {name!r} is empty or repeated; correct it")
        found[name] = _colour(where, [int(n) if n.isdecimal() else n for n in numbers])
    if not found:
        raise UserError(f"{file} lists no classes; {_REMEDY}")
    return _distinct(str(file), found)


def check_colours(colours: object) -> dict[str, Colour]:
    """The colours of an option, by name."""
    if not isinstance(colours, Mapping) or not colours:
        raise UserError(
            f"`colours` must be a mapping such as {{road: [128, 64, 128]}}, got {colours!r}"
        )
    found = {str(name): _colour(f"`colours`, {name}", value) for name, value in colours.items()}
    return _distinct("`colours`", found)


def _distinct(where: str, colours: dict[str, Colour]) -> dict[str, Colour]:
    seen: dict[int, str] = {}
    for name, colour in colours.items():
        first = seen.setdefault(join_colour(colour), name)
        if first != name:
            raise UserError(
                f"{where}: {first!r} and {name!r} have the same colour "
                f"{split_colour(join_colour(colour))}; correct one of them"
            )
    return colours


def _colour(where: str, value: object) -> Colour:
    if isinstance(value, list | tuple) and len(value) == 3 and all(map(_is_byte, value)):
        return value[0], value[1], value[2]
    raise UserError(f"{where}: a colour must be three whole numbers from 0 to 255, got {value!r}")


def _is_byte(value: object, largest: int = 255) -> bool:
    return type(value) is int and 0 <= value <= largest
