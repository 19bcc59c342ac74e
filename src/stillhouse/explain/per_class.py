"""One number per class and network: which classes improved over the control, and which did not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillhouse.explain.compared import Compared
from stillhouse.explain.phrases import (
    baseline_name,
    percent,
    sentence_start,
    signed_points,
    with_article,
)
from stillhouse.explain.row_statistics import Rows
from stillhouse.explain.section import BarChart, Cell, Series, Table

MAX_ROWS = 100  # of the table
ENDS = 10  # classes at each end of the chart
MAX_BARS = 40  # of all networks together


@dataclass(frozen=True, eq=False)
class PerClass:
    """Shares of each class by network: (C,), where classes without images are left out."""

    predictions: Compared[Any]
    values: Mapping[str, Rows]
    count: NDArray[np.int64]  # (C,) images of each class, or objects
    metric: str  # accuracy
    counted: str = "images"

    @property
    def student(self) -> Rows:
        """The shares of the student: -> (C,)."""
        return self.values[self.predictions.student.name]

    @property
    def gain(self) -> Rows | None:
        """The student's shares minus the control's, None without a control: -> (C,)."""
        control = self.predictions.control
        if control is None or control is self.predictions.student:
            return None
        gain: Rows = self.student - self.values[control.name]
        return gain

    @property
    def key(self) -> Rows:
        """What classes are sorted by: the gain, or without a control the share itself."""
        return self.student if self.gain is None else self.gain

    @property
    def order(self) -> list[int]:
        """Classes with images, the highest first."""
        return [int(c) for c in np.argsort(-self.key, kind="stable") if self.count[c]]

    @property
    def title(self) -> str:
        """The metric at the start of a title."""
        return self.metric[:1].upper() + self.metric[1:]

    def table(self) -> Table:
        """The share of each class and network; of many classes, those at the two ends."""
        columns = ("class", self.counted, *(f"{name}, %" for name in self.values))
        columns += () if self.gain is None else (f"gain over {baseline_name(self.predictions)}",)
        rows: list[tuple[Cell, ...]] = []
        for c in both_ends(self.order, MAX_ROWS // 2):
            numbers = [100 * float(shares[c]) for shares in self.values.values()]
            numbers += [] if self.gain is None else [100 * float(self.gain[c])]
            rows.append((self.predictions.classes[c], int(self.count[c]), *numbers))
        return Table(columns, tuple(rows), f"{self.title} per class", digits=1)

    def bars(self) -> BarChart:
        """The gain or share of each class; of many classes, those at the two ends."""
        is_gain = self.gain is not None
        which = both_ends(self.order, ENDS)
        title = f"{self.title} per class"
        if is_gain:
            title += f": gain over {baseline_name(self.predictions)}"
        if len(which) < len(self.order):
            title += f" ({ENDS} highest and {ENDS} lowest)"
        values = tuple(100 * float(self.key[c]) for c in which)
        places = tuple(map(float, range(len(which))))
        series = (Series(self.predictions.student.name, places, values),)
        unit = "percentage points" if is_gain else f"{self.metric}, %"
        return BarChart(title, unit, tuple(self.predictions.classes[c] for c in which), series)

    def all_bars(self) -> BarChart | None:
        """The bars of several networks, classes in the order of the data; None for too many."""
        which = sorted(self.order)
        if len(self.values) < 2 or not 0 < len(which) * len(self.values) <= MAX_BARS:
            return None
        places = tuple(map(float, range(len(which))))
        series = tuple(
            Series(name, places, tuple(100 * float(shares[c]) for c in which))
            for name, shares in self.values.items()
        )
        labels = tuple(self.predictions.classes[c] for c in which)
        return BarChart(f"{self.title} per class", f"{self.metric}, %", labels, series)

    def sentences(self) -> tuple[str, ...]:
        """The classes at both ends, and how many improved over the control."""
        order, student = self.order, with_article(self.predictions.student)
        if not order:
            return (f"No image has {'a class' if self.counted == 'images' else 'an object'}.",)
        best, worst = (f"{self.predictions.classes[c]} ({self._value(c)})" for c in _ends(order))
        if self.gain is None:
            sentences = [
                f"Highest {self.metric} of {student}: {best}; lowest: {worst}.",
            ]
        else:
            values = self.gain[order]
            better, worse = int((values > 0).sum()), int((values < 0).sum())
            sentences = [
                f"{sentence_start(student)} is better than {baseline_name(self.predictions)} on "
                f"{better} of {len(order)} classes and worse on {worse}.",
                f"Largest gain: {best}; smallest gain: {worst}.",
            ]
        if len(order) > MAX_ROWS:
            sentences.append(
                f"The table shows the first and the last {MAX_ROWS // 2} of {len(order)} classes."
            )
        return tuple(sentences)

    def _value(self, c: int) -> str:
        share = float(self.key[c])
        return percent(share) if self.gain is None else f"{signed_points(share)} points"


def both_ends(order: Sequence[int], size: int) -> list[int]:
    """The first and the last `size` items, or all items of a short list."""
    return list(order) if len(order) <= 2 * size else [*order[:size], *order[-size:]]


def _ends(order: Sequence[int]) -> tuple[int, int]:
    return order[0], order[-1]
