"""Which kinds of errors the methods of a study lower: a chart and a table."""

from __future__ import annotations

from collections.abc import Sequence

from stillhouse.explain.section import BarChart, Cell, Series, Table
from stillhouse.study.errors_by_term import ErrorRow
from stillhouse.study.table import format_interval, format_number

CHART = "AP50 lost to each kind of error: change against the control, with 95 % interval"
TABLE = "AP50 lost to each kind of error on test: the control, and changes against it"
UNIT = "points of AP50; below 0, less is lost"


def error_chart(rows: Sequence[ErrorRow]) -> BarChart | None:
    """The change of each kind, a series for each method; None where there is nothing to compare."""
    changed = [row for row in rows if row.change is not None]
    if not changed:
        return None
    kinds = tuple(dict.fromkeys(row.kind for row in changed))
    series = tuple(
        method_series(method, [row for row in changed if row.method == method], kinds)
        for method in dict.fromkeys(row.method for row in changed)
    )
    return BarChart(CHART, UNIT, kinds, series)


def method_series(method: str, rows: Sequence[ErrorRow], kinds: tuple[str, ...]) -> Series:
    """The changes of one method at the places of their kinds."""
    places = tuple(float(kinds.index(row.kind)) for row in rows)
    halves = tuple(((row.high or 0) - (row.low or 0)) / 2 for row in rows)
    return Series(method, places, tuple(row.change for row in rows), error=halves)


def error_table(rows: Sequence[ErrorRow]) -> Table | None:
    """A row for each method and a column for each kind.

    Rows of controls have costs, in points of AP50 after the last epoch; other rows have changes.
    None where no run tells kinds of errors apart.
    """
    if not rows:
        return None
    kinds = tuple(dict.fromkeys(row.kind for row in rows))
    cells: list[tuple[Cell, ...]] = []
    for method in dict.fromkeys(row.method for row in rows):
        by_kind = {row.kind: row for row in rows if row.method == method}
        seeds = max(row.seeds for row in by_kind.values())
        cells.append((method, seeds, *(error_cell(by_kind.get(kind)) for kind in kinds)))
    return Table(("method", "seeds", *kinds), tuple(cells), TABLE)


def error_cell(row: ErrorRow | None) -> Cell:
    """A change with its interval, or without one; without a change, the cost itself."""
    if row is None:
        return None
    if row.change is None:
        return format_number(row.mean, 2)
    if row.low is None:
        return f"{row.change:+.2f}"
    return format_interval(row.change, row.low, row.high)
