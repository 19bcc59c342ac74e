"""What a diagnosis says: sentences, tables and charts as plain data, which a file can hold."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from stillhouse.spec import spec

Cell = float | int | str | None
Matrix = tuple[tuple[float | None, ...], ...]
SIGNIFICANT = 5  # digits of a number in a file, so that a page stays small


@spec
class Table:
    """Rows under named columns; None is a cell that has no value."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    title: str = ""
    digits: int = 2  # after the point, of every float


@spec
class Series:
    """Points of one network or one quantity."""

    name: str
    x: tuple[float, ...]
    y: tuple[float | None, ...]
    group: tuple[int, ...] = ()  # of each point of a cloud: its class
    error: tuple[float, ...] = ()  # of each point: half the length of its whisker


@spec
class Lines:
    """Curves over a common axis."""

    title: str
    x: str
    y: str
    series: tuple[Series, ...]
    diagonal: bool = False  # also draw x = y, where a perfect one would lie
    kind: Literal["lines"] = "lines"


@spec
class Bars:
    """One bar a label and series."""

    title: str
    y: str
    labels: tuple[str, ...]
    series: tuple[Series, ...]  # x is the place of the label
    kind: Literal["bars"] = "bars"


@spec
class Heat:
    """A matrix as colours; `diverging` has its middle colour at 0."""

    title: str
    x: str
    y: str
    values: Matrix
    diverging: bool = False
    kind: Literal["heat"] = "heat"


@spec
class Cloud:
    """Points in a plane, a panel a series, coloured by group."""

    title: str
    series: tuple[Series, ...]
    groups: tuple[str, ...] = ()  # what each group is called, by its number
    kind: Literal["cloud"] = "cloud"


@spec
class Density:
    """How many samples fall into each cell of a grid."""

    name: str
    counts: Matrix  # [y][x]


@spec
class Joint:
    """Histograms of two quantities on one grid, laid over each other."""

    title: str
    x: str
    y: str
    x_edges: tuple[float, ...]
    y_edges: tuple[float, ...]
    densities: tuple[Density, ...]
    kind: Literal["joint"] = "joint"


@spec
class Picture:
    """One image, as the bytes of a PNG in base64."""

    png: str
    caption: str
    alt: str


@spec
class Pictures:
    """Images side by side, in rows of `columns` that belong together; 0: as many as fit."""

    title: str
    pictures: tuple[Picture, ...]
    columns: int = 0
    kind: Literal["pictures"] = "pictures"


Chart = Annotated[Lines | Bars | Heat | Cloud | Joint | Pictures, Field(discriminator="kind")]


@spec
class Section:
    """One diagnosis: what it is called, what it says in sentences, and what it shows."""

    name: str
    title: str
    said: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()


def dump(sections: Iterable[Section]) -> list[Any]:
    """Sections as lists, mappings, strings and numbers that JSON knows, in five digits."""
    plain: list[Any] = _short(_adapter().dump_python(tuple(sections), mode="json"))
    return plain


def parse(content: object) -> tuple[Section, ...]:
    """Sections from what `dump` gave; a ValueError says what is wrong with anything else."""
    return _adapter().validate_python(content)


@cache
def _adapter() -> TypeAdapter[tuple[Section, ...]]:
    return TypeAdapter(tuple[Section, ...])


def _short(value: Any) -> Any:
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        # A whole number, which may be a step, stays what it is.
        return value if value.is_integer() else float(f"{value:.{SIGNIFICANT}g}")
    if isinstance(value, dict):
        return {key: _short(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_short(inner) for inner in value]
    return value
