"""Many trainings, side by side in processes of one thread each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import NamedTuple

from stillhouse.engine.interrupt import Interrupt, Stopped, heed
from stillhouse.recipes.execute import Score, run_cell
from stillhouse.recipes.schema import Recipe

Done = Callable[["Cell", Score], None]


class Cell(NamedTuple):
    """One training: what it is, and where it is kept."""

    recipe: Recipe
    folder: Path


def processes() -> int:
    """As many as there are cores for this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Crew:
    """Processes that train cells, one after another, and are asked to stop as one."""

    def __init__(self, workers: ProcessPoolExecutor) -> None:
        self._workers = workers

    def train(self, cells: Sequence[Cell], done: Done) -> Mapping[Path, Score]:
        """Train every cell and say when each is done; what is finished already is only read.

        A stop that is asked for ends it as an error does: those under way save, no other begins.
        """
        scores: dict[Path, Score] = {}
        with Interrupt() as interrupt:
            left = {self._workers.submit(train_cell, cell): cell for cell in cells}
            while left:
                for future in wait(left, timeout=0.2, return_when=FIRST_COMPLETED).done:
                    cell = left.pop(future)
                    scores[cell.folder] = future.result()
                    done(cell, scores[cell.folder])
                if interrupt.asked:
                    raise Stopped
        return scores


@contextmanager
def crew(jobs: int) -> Iterator[Crew]:
    """Fresh processes, which inherit no threads and no locks; they end with the context."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"  # read when a process starts
    try:
        context = get_context("spawn")
        with ProcessPoolExecutor(jobs, context, initializer=heed) as made:
            try:
                yield Crew(made)
            except BaseException:
                for process in active_children():
                    process.terminate()  # which a training takes as a request to save and end
                made.shutdown(wait=True, cancel_futures=True)
                raise
    finally:
        os.environ.pop("OMP_NUM_THREADS")
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before


def train_cell(cell: Cell) -> Score:
    """One training in a process of its own."""
    return run_cell(cell.recipe, cell.folder)
