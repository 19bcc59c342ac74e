"""The table of network costs, with the reduction from teacher to student."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stillhouse.report.charts.styles import role
from stillhouse.report.formatting import NONE, format_count, format_ratio, format_seconds
from stillhouse.report.page import NetworkCost


@dataclass(frozen=True)
class CostColumn:
    """One kind of cost: its heading, its format, and the words for less and more."""

    field: str
    heading: str
    write: Callable[[float], str]
    less: str
    more: str


@dataclass(frozen=True)
class CostTable:
    """The cells of the table, and the comparison of student and teacher."""

    headings: tuple[str, ...]
    rows: tuple[tuple[NetworkCost, tuple[str, ...]], ...]
    against: tuple[str, ...]  # empty for a single network
    versus: str  # the two networks that are compared


COLUMNS = (
    CostColumn("parameters", "parameters", lambda number: f"{number:,.0f}", "fewer", "more"),
    CostColumn("flops", "compute, one image", lambda n: format_count(n, "FLOPs"), "fewer", "more"),
    CostColumn("latency_1", "latency, batch 1", format_seconds, "faster", "slower"),
    CostColumn("latency_32", "latency, batch 32", format_seconds, "faster", "slower"),
    CostColumn("memory", "peak memory", lambda n: format_count(n, "B"), "less", "more"),
)


def cost_table(costs: Sequence[NetworkCost]) -> CostTable:
    """The columns that were measured, and the comparison of the student with the teacher."""
    shown = [c for c in COLUMNS if any(getattr(cost, c.field) is not None for cost in costs)]
    rows = tuple((cost, tuple(_text(cost, column) for column in shown)) for cost in costs)
    headings = tuple(column.heading for column in shown)
    student = _first(costs, "student") or next(iter(reversed(costs)), None)
    teacher = _first(costs, "teacher") or next((c for c in costs if c is not student), None)
    if teacher is None or student is None or teacher is student:
        return CostTable(headings, rows, (), "")
    versus = f"{student.who} vs. {teacher.who}"
    return CostTable(headings, rows, _ratios(teacher, student, shown), versus)


def _first(costs: Sequence[NetworkCost], part: str) -> NetworkCost | None:
    return next((cost for cost in costs if role(cost.who) == part), None)


def _text(cost: NetworkCost, column: CostColumn) -> str:
    value = getattr(cost, column.field)
    return NONE if value is None else column.write(value)


def _ratios(
    teacher: NetworkCost, student: NetworkCost, columns: Sequence[CostColumn]
) -> tuple[str, ...]:
    return tuple(
        format_ratio(getattr(teacher, c.field), getattr(student, c.field), c.less, c.more)
        for c in columns
    )
