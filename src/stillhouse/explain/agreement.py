"""Where a student says what its teacher says, and where not."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor

from stillhouse.explain.predictions import Hearing, Voice
from stillhouse.explain.thumbnails import disagreements
from stillhouse.explain.section import Cell, Section, Table
from stillhouse.explain.phrases import compared, hundred, percent, start, the


class Split(NamedTuple):
    """Shares of all samples, which add up to 1."""

    both: float  # are right
    learner: float  # alone is right
    other: float  # alone is right
    same_error: float
    two_errors: float


def section(hearing: Hearing) -> Section | None:
    """Top-1 agreement with the teacher and the control, and examples of disagreement."""
    teacher, control = hearing.teacher, hearing.control
    rival = teacher or control
    if rival is None or rival is hearing.student:
        return None
    pictures = disagreements(hearing, hearing.student, rival)
    tables = [_agreement(hearing)]
    if teacher is not None:
        tables.append(_splits(hearing, teacher))
    return Section(
        "agreement",
        "Agreement",
        _said(hearing, rival),
        tuple(tables),
        () if pictures is None else (pictures,),
    )


def agreement(one: Voice, other: Voice) -> float:
    """The share of samples of which both say the same class."""
    return float((answer(one) == answer(other)).double().mean())


def answer(voice: Voice) -> Tensor:
    """The class that a network says: -> (N,)."""
    return voice.logits.argmax(1)


def split(learner: Voice, other: Voice, labels: Tensor) -> Split:
    """Who of two is right how often."""
    said, heard, true = (x.numpy() for x in (answer(learner), answer(other), labels))
    ours, theirs = said == true, heard == true
    neither = ~ours & ~theirs
    cases = (
        ours & theirs,
        ours & ~theirs,
        ~ours & theirs,
        neither & (said == heard),
        neither & (said != heard),
    )
    return Split(*(float(np.mean(case)) for case in cases))


def _agreement(hearing: Hearing) -> Table:
    others = [v for v in (hearing.teacher, hearing.control) if v is not None]
    lines: list[tuple[Cell, ...]] = []
    for voice in hearing.learners:
        shares = (None if other is voice else agreement(voice, other) for other in others)
        lines.append((voice.name, *map(hundred, shares)))
    columns = ("network", *(f"with the {other.name}, %" for other in others))
    return Table(columns, tuple(lines), "Same answer", digits=1)


def _splits(hearing: Hearing, teacher: Voice) -> Table:
    columns = (
        "",
        "both right, %",
        "only it, %",
        "only the teacher, %",
        "same error, %",
        "two errors, %",
    )
    lines: list[tuple[Cell, ...]] = [
        (voice.name, *map(hundred, split(voice, teacher, hearing.labels)))
        for voice in hearing.learners
    ]
    return Table(columns, tuple(lines), "Who is right", digits=1)


def _said(hearing: Hearing, rival: Voice) -> tuple[str, ...]:
    learners = [voice for voice in hearing.learners if voice is not rival]
    shares = {voice.name: percent(agreement(voice, rival)) for voice in learners}
    who, whom = the(hearing.student), the(rival)
    parts = split(hearing.student, rival, hearing.labels)
    same = compared(hearing, shares, " of images")
    return (
        f"{start(who)} says the same class as {whom} in {same}.",
        f"It alone is right in {percent(parts.learner)}, {whom} alone in {percent(parts.other)}; "
        f"both make the same error in {percent(parts.same_error)}.",
    )
