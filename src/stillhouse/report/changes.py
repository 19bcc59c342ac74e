"""How the methods of a study change scores and lower kinds of errors: tables and a chart."""

from __future__ import annotations

from collections.abc import Sequence

from stillhouse.explain.phrases import metric_name
from stillhouse.explain.section import BarChart, Cell, Series, Table
from stillhouse.study.changes import Change
from stillhouse.study.table import format_interval, format_number

CHART = "AP50 lost to each kind of error on {}: change against the control, with 95 % interval"
ERRORS = "AP50 lost to each kind of error on {}: the control, and changes against it"
SCORES = "Other scores on {}: the control, and changes against it"
UNIT = "points of AP50; below 0, less is lost"


def error_chart(rows: Sequence[Change]) -> BarChart | None:
    """The change of each kind, a series for each method; None where there is nothing to compare."""
    changed = [row for row in rows if row.change is not None]
    if not changed:
        return None
    kinds = tuple(dict.fromkeys(row.name for row in changed))
    series = tuple(
        method_series(method, [row for row in changed if row.method == method], kinds)
        for method in dict.fromkeys(row.method for row in changed)
    )
    return BarChart(CHART.format(changed[0].split), UNIT, kinds, series)


def method_series(method: str, rows: Sequence[Change], kinds: tuple[str, ...]) -> Series:
    """The changes of one method at the places of their kinds."""
    places = tuple(float(kinds.index(row.name)) for row in rows)
    halves = tuple(((row.high or 0) - (row.low or 0)) / 2 for row in rows)
    return Series(method, places, tuple(row.change for row in rows), error=halves)


def change_table(rows: Sequence[Change], title: str) -> Table | None:
    """A row for each method and a column for each number.

    The `title` has a place for the split. Rows of controls have the numbers, after the last epoch;
    other rows have changes. None where there are no numbers.
    """
    if not rows:
        return None
    names = tuple(dict.fromkeys(row.name for row in rows))
    cells: list[tuple[Cell, ...]] = []
    for method in dict.fromkeys(row.method for row in rows):
        own = {row.name: row for row in rows if row.method == method}
        seeds = max(row.seeds for row in own.values())
        cells.append((method, seeds, *(change_cell(own.get(name)) for name in names)))
    columns = ("method", "seeds", *map(metric_name, names))
    return Table(columns, tuple(cells), title.format(rows[0].split))


def change_cell(row: Change | None) -> Cell:
    """A change with its interval, or without one; without a change, the number itself."""
    if row is None:
        return None
    if row.change is None:
        return format_number(row.mean, 2)
    if row.low is None:
        return f"{row.change:+.2f}"
    return format_interval(row.change, row.low, row.high)
