"""What the networks cost, in units that people read, and how much less the student takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stillhouse.report.charts.styles import role
from stillhouse.report.page import Cost
from stillhouse.report.formatting import NONE, count, ratio, seconds


@dataclass(frozen=True)
class Column:
    """One kind of cost: its heading, how it is written, and the words for less and more."""

    field: str
    heading: str
    write: Callable[[float], str]
    less: str
    more: str


@dataclass(frozen=True)
class Costs:
    """The table of costs, and the student's beside the teacher's in words."""

    headings: tuple[str, ...]
    rows: tuple[tuple[Cost, tuple[str, ...]], ...]
    against: tuple[str, ...]  # empty where there are no two to compare
    versus: str  # who is compared with whom


COLUMNS = (
    Column("parameters", "parameters", lambda number: f"{number:,.0f}", "fewer", "more"),
    Column("flops", "one image", lambda number: count(number, "FLOPs"), "fewer", "more"),
    Column("latency_1", "batch of 1", seconds, "faster", "slower"),
    Column("latency_32", "batch of 32", seconds, "faster", "slower"),
    Column("memory", "peak memory", lambda number: count(number, "B"), "less", "more"),
)


def table(costs: Sequence[Cost]) -> Costs:
    """The columns that were measured, and the comparison where there are two to compare."""
    shown = [c for c in COLUMNS if any(getattr(cost, c.field) is not None for cost in costs)]
    rows = tuple((cost, tuple(_written(cost, column) for column in shown)) for cost in costs)
    headings = tuple(column.heading for column in shown)
    student = _first(costs, "student") or next(iter(reversed(costs)), None)
    teacher = _first(costs, "teacher") or next((c for c in costs if c is not student), None)
    if teacher is None or student is None or teacher is student:
        return Costs(headings, rows, (), "")
    versus = f"{student.who} against {teacher.who}"
    return Costs(headings, rows, _against(teacher, student, shown), versus)


def _first(costs: Sequence[Cost], part: str) -> Cost | None:
    return next((cost for cost in costs if role(cost.who) == part), None)


def _written(cost: Cost, column: Column) -> str:
    value = getattr(cost, column.field)
    return NONE if value is None else column.write(value)


def _against(teacher: Cost, student: Cost, columns: Sequence[Column]) -> tuple[str, ...]:
    return tuple(
        ratio(getattr(teacher, c.field), getattr(student, c.field), c.less, c.more) for c in columns
    )
