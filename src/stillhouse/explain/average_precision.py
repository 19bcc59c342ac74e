"""How well each class is told from the others: its average precision, and what was gained."""

from __future__ import annotations

import numpy as np

from stillhouse.explain.per_class import ByClass
from stillhouse.explain.predictions import Hearing, Voice
from stillhouse.explain.row_statistics import Rows, average
from stillhouse.explain.section import Bars, Chart, Section, Series
from stillhouse.explain.phrases import compared, listed, percent, start, the
from stillhouse.functional.ranking import average_precision

BARS = 40  # of all networks together: more cannot be read beside each other


def section(hearing: Hearing) -> Section:
    """Average precision of each class, and by gain over the control or, without one, as it is."""
    found = {voice.name: precisions(hearing, voice) for voice in hearing.shown}
    count = hearing.present.sum(0).numpy()
    one = ByClass(hearing, found, count, "average precision")
    charts: list[Chart] = []
    if one.order:
        charts.append(one.bars())
    if 0 < len(one.order) * len(found) <= BARS:
        charts.insert(0, _all(one))
    return Section(
        "precision",
        "Average precision of each class",
        (*_said(hearing, one), *one.said("ranks"), *_missing(hearing, one)),
        (one.table(),) if one.order else (),
        tuple(charts),
    )


def precisions(hearing: Hearing, voice: Voice) -> Rows:
    """Average precision of each class, NaN for one without positives: -> (C,)."""
    found: Rows = average_precision(voice.logits, hearing.present).numpy()
    return found


def _all(one: ByClass) -> Bars:
    """The bars of every network, classes in the order of the data."""
    which = sorted(one.order)
    places = tuple(map(float, range(len(which))))
    series = tuple(
        Series(name, places, tuple(100 * float(shares[c]) for c in which))
        for name, shares in one.found.items()
    )
    labels = tuple(one.hearing.classes[c] for c in which)
    return Bars(one.named, f"{one.what}, %", labels, series)


def _said(hearing: Hearing, one: ByClass) -> tuple[str, ...]:
    means = {name: average(shares).value for name, shares in one.found.items()}
    if means[hearing.student.name] is None:
        return ()
    shares = compared(hearing, {name: percent(value) for name, value in means.items()})
    said = f"{start(the(hearing.student))}'s mean average precision is {shares} of these images"
    if hearing.teacher is None:
        return (f"{said}.",)
    return (f"{said}; the teacher's is {percent(means[hearing.teacher.name])}.",)


def _missing(hearing: Hearing, one: ByClass) -> tuple[str, ...]:
    without = [hearing.classes[int(c)] for c in np.flatnonzero(one.count == 0)]
    if not without or not one.order:
        return ()
    return (f"Left out, because no image has the class: {listed(without)}.",)
