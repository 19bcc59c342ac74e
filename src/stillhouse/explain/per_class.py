"""One number of each class and network: which classes a student gained, and which it lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stillhouse.explain.predictions import Hearing
from stillhouse.explain.row_statistics import Rows
from stillhouse.explain.section import Bars, Cell, Series, Table
from stillhouse.explain.phrases import base, percent, points, start, the

LIMIT = 100  # rows of the table
ENDS = 10  # classes at each end of the chart


@dataclass(frozen=True, eq=False)
class ByClass:
    """Shares of each class by network: (C,), with the classes that have none left out."""

    hearing: Hearing
    found: Mapping[str, Rows]
    count: NDArray[np.int64]  # (C,) images that have a class
    what: str  # accuracy

    @property
    def own(self) -> Rows:
        """The student's."""
        return self.found[self.hearing.student.name]

    @property
    def gain(self) -> Rows | None:
        """The student's minus the control's, where there is one: -> (C,)."""
        control = self.hearing.control
        if control is None or control is self.hearing.student:
            return None
        gained: Rows = self.own - self.found[control.name]
        return gained

    @property
    def key(self) -> Rows:
        """What classes are ordered by: the gain, or without one the number itself."""
        return self.own if self.gain is None else self.gain

    @property
    def order(self) -> list[int]:
        """Classes that have images, the highest first."""
        return [int(c) for c in np.argsort(-self.key, kind="stable") if self.count[c]]

    @property
    def named(self) -> str:
        """What is measured, at the head of a column or a chart."""
        return self.what[:1].upper() + self.what[1:]

    def table(self) -> Table:
        """Every network's number of each class, of many classes the two ends."""
        columns = ("class", "images", *(f"{name}, %" for name in self.found))
        columns += () if self.gain is None else (f"gain over {base(self.hearing)}",)
        lines: list[tuple[Cell, ...]] = []
        for c in ends(self.order, LIMIT // 2):
            numbers = [100 * float(shares[c]) for shares in self.found.values()]
            numbers += [] if self.gain is None else [100 * float(self.gain[c])]
            lines.append((self.hearing.classes[c], int(self.count[c]), *numbers))
        return Table(columns, tuple(lines), f"{self.named} of each class", digits=1)

    def bars(self) -> Bars:
        """The gain of each class or its number, of many classes the two ends."""
        gained = self.gain is not None
        which = ends(self.order, ENDS)
        title = f"Gain over {base(self.hearing)}" if gained else self.named
        if len(which) < len(self.order):
            title += f": the {ENDS} highest and the {ENDS} lowest classes"
        values = tuple(100 * float(self.key[c]) for c in which)
        places = tuple(map(float, range(len(which))))
        series = (Series(self.hearing.student.name, places, values),)
        unit = "percentage points" if gained else f"{self.what}, %"
        return Bars(title, unit, tuple(self.hearing.classes[c] for c in which), series)

    def said(self, verb: str) -> tuple[str, ...]:
        """The classes at both ends; without a control the student `verb`s one best."""
        order, who = self.order, self.hearing.student
        if not order:
            return ("No image has a class.",)
        first, last = (f"{self.hearing.classes[c]} ({self._value(c)})" for c in _poles(order))
        if self.gain is None:
            said = [f"{start(the(who))} {verb} {first} best and {last} least."]
        else:
            values = self.gain[order]
            better, worse = int((values > 0).sum()), int((values < 0).sum())
            said = [
                f"Against {base(self.hearing)}, {the(who)} is better in {better} of "
                f"{len(order)} classes and worse in {worse}.",
                f"It gains most in {first} and least in {last}.",
            ]
        if len(order) > LIMIT:
            said.append(f"The table shows the {LIMIT // 2} classes at each end of {len(order)}.")
        return tuple(said)

    def _value(self, c: int) -> str:
        share = float(self.key[c])
        return percent(share) if self.gain is None else f"{points(share)} points"


def ends(order: Sequence[int], size: int) -> list[int]:
    """The first and the last of a list, or all of a short one."""
    return list(order) if len(order) <= 2 * size else [*order[:size], *order[-size:]]


def _poles(order: Sequence[int]) -> tuple[int, int]:
    return order[0], order[-1]
