"""The content of a page: of a run, of a study, or of two runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stillhouse.explain.section import Chart, Section, Table


@dataclass(frozen=True)
class ScoreBar:
    """One score: its mean and standard deviation over seeds, and the value in the paper."""

    who: str  # teacher, control, student, or the name of a method
    value: float
    spread: float = 0.0
    paper: float | None = None


@dataclass(frozen=True)
class NetworkCost:
    """Size and speed of a network on the machine where it was measured; None: not measured."""

    who: str
    name: str
    parameters: int | None = None
    flops: int | None = None  # of one image
    latency_1: float | None = None  # seconds of a batch of 1
    latency_32: float | None = None  # seconds of a batch of 32
    memory: int | None = None  # bytes at the peak of a batch of 32, with the weights


@dataclass(frozen=True)
class Page:
    """One page, from the answer to the commands that reproduce it."""

    title: str
    answers: tuple[str, ...]  # the first is the largest
    headline: str  # the metric of the bars: top1
    split: str  # of the scores: test, or validation
    bars: tuple[ScoreBar, ...] = ()
    costs: tuple[NetworkCost, ...] = ()
    machine: str = ""  # where the costs were measured
    notes: tuple[str, ...] = ()  # failed runs, unreadable folders, parts that could not be made
    curves: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    sections: tuple[Section, ...] = ()
    recipe: str = ""
    environment: str = ""
    usage: tuple[str, ...] = ()  # lines of Python that load the student
    again: tuple[str, ...] = ()  # commands
    files: tuple[Path, ...] = ()  # tables beside the page
