"""Bars of the first screen: from 0, so that lengths are true; closer, so that they differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stillhouse.report.charts.styles import role
from stillhouse.report.page import Bar, Page
from stillhouse.report.axis_scale import Scale, around
from stillhouse.report.formatting import fixed

CLOSER = 0.5  # of the whole axis: what is wider than that needs no closer look


@dataclass(frozen=True)
class Mark:
    """Where one value lies on an axis, in percent of it."""

    start: float  # of the bar
    length: float
    at: float
    low: float  # of the whisker
    reach: float
    paper: float | None


@dataclass(frozen=True)
class Row:
    """One who was measured, as the page shows it."""

    who: str
    role: str
    value: str
    spread: str
    paper: str
    whole: Mark | None
    close: Mark | None


@dataclass(frozen=True)
class Score:
    """All bars over their axes."""

    caption: str
    rows: tuple[Row, ...]
    whole: Scale
    close: Scale | None
    papers: bool


def score(page: Page) -> Score:
    """The bars of a page, with the axes that they need."""
    known = [bar for bar in page.bars if math.isfinite(bar.value)]
    whole = around([0.0, *_ends(known)], count=4)
    close = around(_ends(known), count=4)
    narrow = len(known) > 1 and close.high - close.low < CLOSER * (whole.high - whole.low)
    zoom = close if narrow else None
    digits = _digits(known)
    rows = tuple(_row(bar, digits, whole, zoom) for bar in page.bars)
    papers = any(bar.paper is not None for bar in page.bars)
    return Score(_caption(page), rows, whole, zoom, papers)


def _caption(page: Page) -> str:
    spread = any(bar.spread for bar in page.bars)
    return "mean ± standard deviation over seeds" if spread else ""


def _ends(bars: Sequence[Bar]) -> list[float | None]:
    found: list[float | None] = [bar.paper for bar in bars]
    for bar in bars:
        found += [bar.value - bar.spread, bar.value + bar.spread]
    return found


def _digits(bars: Sequence[Bar]) -> int:
    # Scores are percents or shares of one.
    return 2 if any(abs(bar.value) > 2 for bar in bars) else 4


def _row(bar: Bar, digits: int, whole: Scale, close: Scale | None) -> Row:
    return Row(
        who=bar.who,
        role=role(bar.who.partition(" ")[0]) or "student",  # "teacher large" is one, too
        value=fixed(bar.value, digits),
        spread=fixed(bar.spread, digits) if bar.spread else "",
        paper=fixed(bar.paper, digits) if bar.paper is not None else "",
        whole=_mark(bar, whole, 0.0),
        close=_mark(bar, close, close.low) if close else None,
    )


def _mark(bar: Bar, scale: Scale, origin: float) -> Mark | None:
    if not math.isfinite(bar.value):
        return None
    at, zero = scale.share(bar.value), scale.share(origin)
    low = scale.share(bar.value - bar.spread)
    reach = round(scale.share(bar.value + bar.spread) - low, 2)
    paper = None if bar.paper is None else scale.share(bar.paper)
    return Mark(min(at, zero), round(abs(at - zero), 2), at, low, reach, paper)
