"""The content of a diagnosis: sentences, tables and charts as plain data that JSON can hold."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, TypeAdapter

from stillhouse.spec import validated

Cell = float | int | str | None
Matrix = tuple[tuple[float | None, ...], ...]
SIGNIFICANT_DIGITS = 5  # of a number of a chart in a file, so that a page stays small
# A number that a page writes keeps enough of them to be rounded once, by the page.
WRITTEN_DIGITS = 12


@validated
class Table:
    """Rows under named columns; None is a cell without a value."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    title: str = ""
    digits: int = 2  # after the decimal point, of every float


@validated
class Series:
    """The points of one network or one quantity."""

    name: str
    x: tuple[float, ...]
    y: tuple[float | None, ...]
    group: tuple[int, ...] = ()  # class of each point, in a scatter plot
    error: tuple[float, ...] = ()  # half the length of each error bar


@validated
class LineChart:
    """Curves over a common x-axis."""

    title: str
    x: str
    y: str
    series: tuple[Series, ...]
    diagonal: bool = False  # also draw y = x
    kind: Literal["lines"] = "lines"


@validated
class BarChart:
    """One bar per label and series."""

    title: str
    y: str
    labels: tuple[str, ...]
    series: tuple[Series, ...]  # x is the index of the label
    kind: Literal["bars"] = "bars"


@validated
class Heatmap:
    """A matrix as colours; the middle colour of a `diverging` one is at 0.

    Matrices that are compared have the same `limits`, so that a colour is one value in all of them.
    """

    title: str
    x: str
    y: str
    values: Matrix
    diverging: bool = False
    limits: tuple[float, float] | None = None  # of the colours; None: those of the values
    row_names: tuple[str, ...] = ()
    column_names: tuple[str, ...] = ()
    kind: Literal["heat"] = "heat"


@validated
class ScatterPlot:
    """Points in two dimensions, one panel per series, coloured by group."""

    title: str
    series: tuple[Series, ...]
    groups: tuple[str, ...] = ()  # names of the groups, by index
    kind: Literal["cloud"] = "cloud"


@validated
class Histogram2D:
    """The number of samples in each cell of a grid."""

    name: str
    counts: Matrix  # [y][x]


@validated
class DensityPlot:
    """Two-dimensional histograms on one grid, drawn over each other."""

    title: str
    x: str
    y: str
    x_edges: tuple[float, ...]
    y_edges: tuple[float, ...]
    densities: tuple[Histogram2D, ...]
    kind: Literal["joint"] = "joint"


@validated
class CaptionedImage:
    """One image, as the bytes of a PNG in base64."""

    png: str
    caption: str
    alt: str


@validated
class ImageGrid:
    """Images side by side, in rows of `columns` images; 0: as many as fit."""

    title: str
    pictures: tuple[CaptionedImage, ...]
    columns: int = 0
    kind: Literal["pictures"] = "pictures"


Chart = Annotated[
    LineChart | BarChart | Heatmap | ScatterPlot | DensityPlot | ImageGrid,
    Field(discriminator="kind"),
]
DRAWN = ("lines", "heat", "cloud", "joint")  # kinds of charts without written values
# older files call the sentences `said`
Sentences = Annotated[tuple[str, ...], Field(validation_alias=AliasChoices("sentences", "said"))]


@validated
class Section:
    """One diagnosis: its name, its title, and its sentences, tables and charts."""

    name: str
    title: str
    sentences: Sentences = ()
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()
    note: str = ""  # why this is an earlier result, if it is one
    failed: bool = False  # it could not be computed, and the sentence says why
    missing: tuple[str, ...] = ()  # networks without outputs when it was computed
    split: str = ""  # of its images; "": those of training, or none

    @property
    def heading(self) -> str:
        """The title with the split."""
        return f"{self.title}, on {self.split}" if self.split else self.title


def sections_to_json(sections: Iterable[Section]) -> list[Any]:
    """Sections as lists, dicts, strings and finite numbers.

    Numbers of charts have five significant digits, those of tables and bars twelve.
    """
    plain: list[Any] = _rounded(_adapter().dump_python(tuple(sections), mode="json"))
    return plain


def sections_from_json(content: object) -> tuple[Section, ...]:
    """Sections from the output of `sections_to_json`; raises ValueError for anything else."""
    return _adapter().validate_python(content)


@cache
def _adapter() -> TypeAdapter[tuple[Section, ...]]:
    return TypeAdapter(tuple[Section, ...])


def _rounded(value: Any, digits: int = WRITTEN_DIGITS) -> Any:
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        # A whole number, which may be a step, keeps all its digits.
        return value if value.is_integer() else float(f"{value:.{digits}g}")
    if isinstance(value, dict):
        if value.get("kind") in DRAWN:
            digits = SIGNIFICANT_DIGITS
        return {key: _rounded(inner, digits) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner, digits) for inner in value]
    return value
