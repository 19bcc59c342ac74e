"""How many classes a network says at a probability of a half, and how rightly."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from stillhouse.explain.predictions import Hearing
from stillhouse.explain.section import Bars, Cell, Section, Series, Table
from stillhouse.explain.phrases import compared, decimal, percent, start, the
from stillhouse.functional.ranking import above_half, counted, macro_f1, micro_f1

MOST = 6  # classes an image, from which on counts share a bar
TRUTH = "truth"


class Decisions(NamedTuple):
    """What comes of saying each class whose probability is above a half."""

    micro_f1: float  # of all decisions together
    macro_f1: float  # the mean of classes
    precision: float | None  # of what is said, how much is there; None: nothing is said
    recall: float | None  # of what is there, how much is said; None: nothing is there
    said: float  # classes an image
    exact: float  # share of images with as many classes as are there
    more: float
    fewer: float


def section(hearing: Hearing) -> Section:
    """F1, precision and recall of each network at a half, and how many classes it says."""
    present = hearing.present
    found = {v.name: decisions(v.logits, present) for v in hearing.voices}
    truth = float(present.double().sum(1).mean())
    lines: list[tuple[Cell, ...]] = [
        (name, *_hundred(d[:4]), d.said, *_hundred(d[5:])) for name, d in found.items()
    ]
    columns = (
        "network",
        "micro F1, %",
        "macro F1, %",
        "precision, %",
        "recall, %",
        "classes an image",
        "as many as there are, %",
        "more, %",
        "fewer, %",
    )
    return Section(
        "decisions",
        "Classes said at a probability of a half",
        _said(hearing, found, truth),
        (Table(columns, tuple(lines), digits=1),),
        (_bars(hearing),),
    )


def decisions(logits: Tensor, present: Tensor) -> Decisions:
    """What comes of a threshold of a half: (N, C), (N, C) bool."""
    said = above_half(logits)
    counts = counted(said, present)
    right, wrong, missed = (int(count.sum()) for count in counts)
    excess = said.sum(1) - present.sum(1)
    return Decisions(
        float(micro_f1(counts)),
        float(macro_f1(counts)),
        right / (right + wrong) if right + wrong else None,
        right / (right + missed) if right + missed else None,
        float(said.double().sum(1).mean()),
        *(float(each.double().mean()) for each in (excess == 0, excess > 0, excess < 0)),
    )


def shares(chosen: Tensor, most: int) -> tuple[float, ...]:
    """The percentage of images with 0, 1, .. classes, the last with `most` or more: (N, C)."""
    counts = chosen.sum(1).clamp(max=most)
    return tuple((100 * torch.bincount(counts, minlength=most + 1) / len(counts)).tolist())


def _bars(hearing: Hearing) -> Bars:
    chosen = {TRUTH: hearing.present} | {v.name: above_half(v.logits) for v in hearing.shown}
    largest = max(int(each.sum(1).max()) for each in chosen.values())
    most = min(largest, MOST)
    labels = [str(count) for count in range(most + 1)]
    labels[-1] += " or more" if most < largest else ""
    places = tuple(map(float, range(most + 1)))
    series = tuple(Series(name, places, shares(each, most)) for name, each in chosen.items())
    return Bars("How many classes an image is given", "images, %", tuple(labels), series)


def _hundred(values: tuple[float | None, ...]) -> list[float | None]:
    return [None if value is None else 100 * value for value in values]


def _said(hearing: Hearing, found: dict[str, Decisions], truth: float) -> tuple[str, ...]:
    who, own = start(the(hearing.student)), found[hearing.student.name]
    micro = compared(hearing, {name: percent(d.micro_f1) for name, d in found.items()})
    count = compared(hearing, {name: decimal(d.said) for name, d in found.items()})
    exact = compared(hearing, {name: percent(d.exact) for name, d in found.items()})
    said = f"{who}'s F1 over all decisions is {micro}"
    if hearing.teacher is not None:
        said += f", the teacher's {percent(found[hearing.teacher.name].micro_f1)}"
    gap = own.said - truth
    side = "too many" if gap > 0 else "too few"
    return (
        f"{said}.",
        f"It says {count} classes an image, and there are {truth:.2f}"
        + (f", so it says {side}." if abs(gap) >= 0.05 else "."),
        f"It says as many as there are in {exact} of images.",
    )
