"""Axes with round tick values."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from stillhouse.report.formatting import MINUS

DECADES = 3  # a wider range of positive values has a logarithmic axis
LIMIT = 1e300  # the difference of larger values overflows


@dataclass(frozen=True)
class AxisScale:
    """The range of an axis, its ticks and their labels."""

    low: float
    high: float
    ticks: tuple[float, ...]
    labels: tuple[str, ...]
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """The position of a value on a linear axis, in percent."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)


def finite_values(values: Iterable[float | None]) -> list[float]:
    """The values that can be drawn."""
    return [v for v in values if v is not None and math.isfinite(v) and abs(v) < LIMIT]


def value_range(values: Iterable[float | None]) -> tuple[float, float]:
    """The lowest and the highest value, apart even for one value or none."""
    known = finite_values(values)
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    if high - low <= max(1e-9 * max(abs(low), abs(high)), 1 / LIMIT):
        pad = abs(low) / 10 or 1.0
        return low - pad, high + pad
    return low, high


def tick_step(low: float, high: float, count: int, whole: bool = False) -> float:
    """The round distance of about `count` ticks; a whole number on request."""
    raw = (high - low) / count
    size = 10.0 ** math.floor(math.log10(raw))
    steps = (1, 2, 5, 10) if whole else (1, 2, 2.5, 5, 10)
    step = next(size * step for step in steps if size * step >= raw * 0.999)
    return max(1.0, step) if whole else step


def enclosing_scale(values: Iterable[float | None], count: int = 5) -> AxisScale:
    """An axis from tick to tick around the values."""
    low, high = value_range(values)
    step = tick_step(low, high, count)
    ticks = _multiples(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9), step)
    return AxisScale(ticks[0], ticks[-1], ticks, tick_labels(ticks))


def linear_scale(values: Iterable[float | None], margin: float = 0.04, count: int = 5) -> AxisScale:
    """An axis with a margin around the values, and ticks inside."""
    known = finite_values(values)
    low, high = value_range(known)
    pad = margin * (high - low)
    whole = all(value == round(value) for value in known)
    step = tick_step(low, high, count, whole)
    low, high = low - pad, high + pad
    ticks = _multiples(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9), step)
    return AxisScale(low, high, ticks, tick_labels(ticks))


def auto_scale(values: Iterable[float | None]) -> AxisScale:
    """A linear axis, or a logarithmic one for positive values over several decades."""
    known = finite_values(values)
    low, high = value_range(known)
    if not known or min(known) <= 0 or math.log10(max(known) / min(known)) <= DECADES:
        return linear_scale(known)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    step = max(1, math.ceil((last - first) / 6))
    ticks = tuple(10.0**power for power in range(first, last + 1, step))
    labels = tuple(map(_scientific, ticks))
    return AxisScale(10.0**first, 10.0**last, ticks, labels, logarithmic=True)


def tick_labels(ticks: Iterable[float]) -> tuple[str, ...]:
    """The labels of ticks, with the same digits after the point, as many as they need."""
    ticks = tuple(ticks)
    largest = max(map(abs, ticks), default=0.0)
    if largest and not 1e-3 <= largest < 1e6:
        return tuple(map(_scientific, ticks))
    digits = next((d for d in range(9) if all(_is_exact(tick, d) for tick in ticks)), 9)
    return tuple(f"{tick:,.{digits}f}".replace("-", MINUS) for tick in ticks)


def _multiples(first: int, last: int, step: float) -> tuple[float, ...]:
    # 3 * 0.1 is not 0.3 until it is rounded.
    return tuple(float(f"{k * step:.12g}") + 0.0 for k in range(first, last + 1))


def _is_exact(value: float, digits: int) -> bool:
    return math.isclose(round(value, digits), value, rel_tol=1e-9, abs_tol=1e-12)


def _scientific(value: float) -> str:
    text = f"{value:.10g}"
    if value and not 1e-3 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.9e}".split("e")
        text = f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return text.replace("-", MINUS)
