"""Cells trained in this process, one after another: what a crew does, without its processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from stillhouse.study.jobs import Cell, Done, Outcome, train_cell


class Alone:
    """Trains cells here, and remembers which it was given."""

    def __init__(self) -> None:
        self.asked: list[Path] = []

    def train(self, cells: Sequence[Cell], done: Done) -> Mapping[Path, Outcome]:
        outcomes: dict[Path, Outcome] = {}
        for cell in cells:
            self.asked.append(cell.folder)
            outcomes[cell.folder] = train_cell(cell)
            done(cell, outcomes[cell.folder])
        return outcomes
