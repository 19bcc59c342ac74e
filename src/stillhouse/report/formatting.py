"""How numbers are written on a page: counts, times, sizes and ratios."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from stillhouse.explain.phrases import without_float_error
from stillhouse.explain.section import Cell

NONE, MINUS = "–", "−"
_NUMBER = re.compile(r"[+\-−]?(\d[\d,]*(\.\d+)?|\.\d+|∞)(e[+\-]?\d+)?\s*(%|[±(].*)?")
_LARGE = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_SMALL = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def format_fixed(value: float, digits: int) -> str:
    """Fixed digits after the point, with thousands separators and a minus sign."""
    if math.isnan(value):
        return NONE
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    value = without_float_error(value)
    text = f"{value:,.{digits}f}" if abs(value) < 1e12 else f"{value:.{digits}e}"
    if not text.strip("-0.,"):  # no sign for a value that is rounded to 0
        text = text.lstrip("-")
    return text.replace("-", MINUS) if "e" not in text else text


def format_cell(value: Cell, digits: int = 2) -> str:
    """The text of a table cell."""
    if value is None:
        return NONE
    if isinstance(value, float):
        return format_fixed(value, digits)
    return f"{value:,}".replace("-", MINUS) if isinstance(value, int) else value


def is_numeric(value: Cell) -> bool:
    """Whether a cell is right-aligned as a number: 5, "81.4 ± 0.3", "12 %"."""
    return not isinstance(value, str) or bool(_NUMBER.fullmatch(value.strip()))


def format_short(value: float) -> str:
    """Four significant digits, with an exponent where needed."""
    if not math.isfinite(value):
        return format_fixed(value, 0)
    text = f"{value:.4g}"
    if "e" in text:
        mantissa, exponent = text.split("e")
        text = f"{mantissa}e{int(exponent)}"
    return text.replace("-", MINUS)


def format_alike(values: Sequence[float]) -> list[str]:
    """Equal digits after the point, so that the largest value has three significant digits."""
    largest = max(map(abs, values), default=0.0)
    if largest and not 1e-3 <= largest < 1e6:
        return [format_short(float(f"{value:.3g}")) for value in values]
    whole = not largest or all(value == round(value) for value in values)
    digits = 0 if whole else max(0, 2 - math.floor(math.log10(largest)))
    return [format_fixed(value, digits) for value in values]


def format_count(value: float, unit: str) -> str:
    """Three digits and an SI prefix: 1.9 MFLOPs, 3.4 MB."""
    value = float(f"{value:.3g}")
    size, prefix = next((pair for pair in _LARGE if value >= pair[0]), (1.0, ""))
    return f"{_three_digits(value / size)} {prefix}{unit}"


def format_seconds(value: float) -> str:
    """Three digits and a unit: 1.2 ms, 340 µs."""
    value = float(f"{value:.3g}")
    size, unit = next((pair for pair in _SMALL if value >= pair[0]), _SMALL[-1])
    return f"{_three_digits(value / size)} {unit}"


def format_ratio(before: float | None, after: float | None, fewer: str, more: str) -> str:
    """The change of a cost: "14 × fewer", "1.3 × more", "the same"."""
    if before is None or after is None or before <= 0 or after <= 0:
        return NONE
    times = before / after
    if max(times, 1 / times) < 1.05:
        return "the same"
    return f"{_times(times)} × {fewer}" if times > 1 else f"{_times(1 / times)} × {more}"


def truncate(text: str, most: int) -> str:
    """At most `most` letters, with an ellipsis where some are cut."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _times(value: float) -> str:
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.1f}"
