"""Round numbers along an axis."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from stillhouse.report.formatting import MINUS

DECADES = 3  # a quantity that spans more of them is shown on a logarithmic axis
LIMIT = 1e300  # beyond it, differences overflow


@dataclass(frozen=True)
class Scale:
    """Where an axis begins and ends, and what is written along it."""

    low: float
    high: float
    ticks: tuple[float, ...]
    labels: tuple[str, ...]
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """How far along a linear axis a value lies, in percent."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)


def finite(values: Iterable[float | None]) -> list[float]:
    """The values that can be drawn."""
    return [v for v in values if v is not None and math.isfinite(v) and abs(v) < LIMIT]


def span(values: Iterable[float | None]) -> tuple[float, float]:
    """The lowest and the highest, apart even where there is one value or none."""
    known = finite(values)
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    if high - low <= max(1e-9 * max(abs(low), abs(high)), 1 / LIMIT):
        pad = abs(low) / 10 or 1.0
        return low - pad, high + pad
    return low, high


def gap(low: float, high: float, count: int, whole: bool = False) -> float:
    """The round distance between about so many ticks."""
    raw = (high - low) / count
    size = 10.0 ** math.floor(math.log10(raw))
    steps = (1, 2, 5, 10) if whole else (1, 2, 2.5, 5, 10)
    found = next(size * step for step in steps if size * step >= raw * 0.999)
    return max(1.0, found) if whole else found


def around(values: Iterable[float | None], count: int = 5) -> Scale:
    """An axis that begins and ends at a tick, with the values inside."""
    low, high = span(values)
    every = gap(low, high, count)
    ticks = _multiples(math.floor(low / every + 1e-9), math.ceil(high / every - 1e-9), every)
    return Scale(ticks[0], ticks[-1], ticks, labels(ticks))


def linear(values: Iterable[float | None], margin: float = 0.04, count: int = 5) -> Scale:
    """An axis a little longer than the values, with ticks inside."""
    known = finite(values)
    low, high = span(known)
    pad = margin * (high - low)
    whole = all(value == round(value) for value in known)
    every = gap(low, high, count, whole)
    low, high = low - pad, high + pad
    ticks = _multiples(math.ceil(low / every - 1e-9), math.floor(high / every + 1e-9), every)
    return Scale(low, high, ticks, labels(ticks))


def fitting(values: Iterable[float | None]) -> Scale:
    """A linear axis, or a logarithmic one where positive values span several decades."""
    known = finite(values)
    low, high = span(known)
    if not known or min(known) <= 0 or math.log10(max(known) / min(known)) <= DECADES:
        return linear(known)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, math.ceil((last - first) / 6))
    ticks = tuple(10.0**power for power in range(first, last + 1, every))
    return Scale(10.0**first, 10.0**last, ticks, tuple(map(_scientific, ticks)), logarithmic=True)


def labels(ticks: Iterable[float]) -> tuple[str, ...]:
    """What is written at the ticks: as many digits as tell them apart, the same at each."""
    ticks = tuple(ticks)
    largest = max(map(abs, ticks), default=0.0)
    if largest and not 1e-3 <= largest < 1e6:
        return tuple(map(_scientific, ticks))
    digits = next((d for d in range(9) if all(_rounds(tick, d) for tick in ticks)), 9)
    return tuple(f"{tick:,.{digits}f}".replace("-", MINUS) for tick in ticks)


def _multiples(first: int, last: int, every: float) -> tuple[float, ...]:
    # 3 * 0.1 is not 0.3 until it is rounded.
    return tuple(float(f"{k * every:.12g}") + 0.0 for k in range(first, last + 1))


def _rounds(value: float, digits: int) -> bool:
    return math.isclose(round(value, digits), value, rel_tol=1e-9, abs_tol=1e-12)


def _scientific(value: float) -> str:
    text = f"{value:.10g}"
    if value and not 1e-3 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.9e}".split("e")
        text = f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return text.replace("-", MINUS)
