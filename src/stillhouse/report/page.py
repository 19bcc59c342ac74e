"""What a page holds, whatever it is about: a run, a study, two runs beside each other."""

from __future__ import annotations

from dataclasses import dataclass

from stillhouse.explain.section import Chart, Section, Table


@dataclass(frozen=True)
class Bar:
    """One who was measured: a mean, its spread over seeds, and what the paper says of it."""

    who: str  # teacher, control, student, or the name of a method
    value: float
    spread: float = 0.0
    paper: float | None = None


@dataclass(frozen=True)
class Cost:
    """What a network takes, on the machine where it was measured; None: it was not."""

    who: str
    name: str
    parameters: int | None = None
    flops: int | None = None  # of one image
    latency_1: float | None = None  # seconds of a batch of 1
    latency_32: float | None = None  # seconds of a batch of 32
    memory: int | None = None  # bytes at the peak of a batch of 32, weights among them


@dataclass(frozen=True)
class Page:
    """One page, from the answer down to how to do it again."""

    title: str
    answers: tuple[str, ...]  # the first is the largest
    headline: str  # what the bars measure: top1
    bars: tuple[Bar, ...] = ()
    costs: tuple[Cost, ...] = ()
    machine: str = ""  # where speed and memory were measured
    notes: tuple[str, ...] = ()  # what a reader must know: cells that failed, folders left out
    curves: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    sections: tuple[Section, ...] = ()
    recipe: str = ""
    environment: str = ""
    again: tuple[str, ...] = ()  # commands
