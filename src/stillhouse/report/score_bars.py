"""The bars of the scores: on an axis from 0, and magnified so that small differences show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stillhouse.report.axis_scale import AxisScale, enclosing_scale
from stillhouse.report.charts.styles import role
from stillhouse.report.formatting import format_fixed
from stillhouse.report.page import Page, ScoreBar

MAGNIFIED = 0.5  # of the whole axis: a range that is wider is not magnified


@dataclass(frozen=True)
class BarPosition:
    """Where one value lies on an axis, in percent of the axis."""

    start: float  # of the bar
    length: float
    at: float
    low: float  # of the error bar
    reach: float
    paper: float | None


@dataclass(frozen=True)
class ScoreRow:
    """One score as the page shows it."""

    who: str
    role: str
    value: str
    spread: str
    paper: str
    whole: BarPosition | None
    close: BarPosition | None


@dataclass(frozen=True)
class ScoreChart:
    """All bars, and their axes."""

    caption: str
    rows: tuple[ScoreRow, ...]
    whole: AxisScale
    close: AxisScale | None
    papers: bool


def score_chart(page: Page) -> ScoreChart:
    """The bars of a page, with the axes that they need."""
    known = [bar for bar in page.bars if math.isfinite(bar.value)]
    whole = enclosing_scale([0.0, *_ends(known)], count=4)
    close = enclosing_scale(_ends(known), count=4)
    narrow = len(known) > 1 and close.high - close.low < MAGNIFIED * (whole.high - whole.low)
    magnified = close if narrow else None
    digits = _digits(known)
    rows = tuple(_row(bar, digits, whole, magnified) for bar in page.bars)
    papers = any(bar.paper is not None for bar in page.bars)
    return ScoreChart(_caption(page), rows, whole, magnified, papers)


def _caption(page: Page) -> str:
    spread = any(bar.spread for bar in page.bars)
    return "mean ± standard deviation over seeds" if spread else ""


def _ends(bars: Sequence[ScoreBar]) -> list[float | None]:
    ends: list[float | None] = [bar.paper for bar in bars]
    for bar in bars:
        ends += [bar.value - bar.spread, bar.value + bar.spread]
    return ends


def _digits(bars: Sequence[ScoreBar]) -> int:
    # Scores are percentages, or fractions below 1.
    return 2 if any(abs(bar.value) > 2 for bar in bars) else 4


def _row(bar: ScoreBar, digits: int, whole: AxisScale, close: AxisScale | None) -> ScoreRow:
    return ScoreRow(
        who=bar.who,
        role=role(bar.who.partition(" ")[0]) or "student",  # "teacher large" is a teacher
        value=format_fixed(bar.value, digits),
        spread=format_fixed(bar.spread, digits) if bar.spread else "",
        paper=format_fixed(bar.paper, digits) if bar.paper is not None else "",
        whole=_position(bar, whole, 0.0),
        close=_position(bar, close, close.low) if close else None,
    )


def _position(bar: ScoreBar, scale: AxisScale, origin: float) -> BarPosition | None:
    if not math.isfinite(bar.value):
        return None
    at, zero = scale.share(bar.value), scale.share(origin)
    low = scale.share(bar.value - bar.spread)
    reach = round(scale.share(bar.value + bar.spread) - low, 2)
    paper = None if bar.paper is None else scale.share(bar.paper)
    return BarPosition(min(at, zero), round(abs(at - zero), 2), at, low, reach, paper)
