"""Which classes a student gets right, and which it gained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stillhouse.explain.hearing import Hearing, Voice
from stillhouse.explain.rows import Rows
from stillhouse.explain.section import Bars, Cell, Section, Series, Table
from stillhouse.explain.words import base, percent, points, start, the

LIMIT = 100  # rows of the table
ENDS = 10  # classes at each end of the chart


def section(hearing: Hearing) -> Section:
    """Accuracy of each class, by gain over the control or, without one, by accuracy."""
    found = {voice.name: accuracies(hearing, voice) for voice in hearing.shown}
    own, control = found[hearing.student.name], hearing.control
    gain = None
    if control is not None and control is not hearing.student:
        gain = own - found[control.name]
    count = np.bincount(hearing.labels.numpy(), minlength=len(hearing.classes))
    key = own if gain is None else gain
    order = [int(c) for c in np.argsort(-key, kind="stable") if count[c]]
    return Section(
        "classes",
        "Classes",
        _said(hearing, key, gain is not None, order),
        (_table(hearing, found, gain, count, order),),
        (_bars(hearing, key, gain is not None, order),),
    )


def accuracies(hearing: Hearing, voice: Voice) -> Rows:
    """The share of samples of each class that are called so, NaN for a class without: -> (C,)."""
    labels, size = hearing.labels.numpy(), len(hearing.classes)
    hits = (voice.logits.argmax(1).numpy() == labels).astype(float)
    count = np.bincount(labels, minlength=size)
    total = np.bincount(labels, weights=hits, minlength=size)
    found: Rows = np.divide(total, count, out=np.full(size, np.nan), where=count > 0)
    return found


def ends(order: Sequence[int], size: int) -> list[int]:
    """The first and the last of a list, or all of a short one."""
    return list(order) if len(order) <= 2 * size else [*order[:size], *order[-size:]]


def _table(
    hearing: Hearing,
    found: dict[str, Rows],
    gain: Rows | None,
    count: NDArray[np.int64],
    order: Sequence[int],
) -> Table:
    columns = ("class", "images", *(f"{name}, %" for name in found))
    columns += () if gain is None else (f"gain over {base(hearing)}",)
    lines: list[tuple[Cell, ...]] = []
    for c in ends(order, LIMIT // 2):
        numbers = [100 * float(accuracy[c]) for accuracy in found.values()]
        numbers += [] if gain is None else [100 * float(gain[c])]
        lines.append((hearing.classes[c], int(count[c]), *numbers))
    return Table(columns, tuple(lines), "Accuracy of each class", digits=1)


def _bars(hearing: Hearing, key: Rows, gained: bool, order: Sequence[int]) -> Bars:
    which = ends(order, ENDS)
    title = f"Gain over {base(hearing)}" if gained else "Accuracy"
    if len(which) < len(order):
        title += f": the {ENDS} highest and the {ENDS} lowest classes"
    values = tuple(100 * float(key[c]) for c in which)
    places = tuple(map(float, range(len(which))))
    series = (Series(hearing.student.name, places, values),)
    unit = "percentage points" if gained else "accuracy, %"
    return Bars(title, unit, tuple(hearing.classes[c] for c in which), series)


def _said(hearing: Hearing, key: Rows, gained: bool, order: Sequence[int]) -> tuple[str, ...]:
    first, last = (f"{hearing.classes[c]} ({_value(key[c], gained)})" for c in _poles(order))
    if gained:
        values = key[list(order)]
        better, worse = int((values > 0).sum()), int((values < 0).sum())
        said = [
            f"Against {base(hearing)}, {the(hearing.student)} is better in {better} of "
            f"{len(order)} classes and worse in {worse}.",
            f"It gains most in {first} and least in {last}.",
        ]
    else:
        said = [f"{start(the(hearing.student))} knows {first} best and {last} least."]
    if len(order) > LIMIT:
        said.append(f"The table shows the {LIMIT // 2} classes at each end of {len(order)}.")
    return tuple(said)


def _poles(order: Sequence[int]) -> tuple[int, int]:
    return order[0], order[-1]


def _value(share: float, gained: bool) -> str:
    return f"{points(share)} points" if gained else percent(share)
