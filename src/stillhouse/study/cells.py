"""Many trainings, side by side in processes of one thread each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import NamedTuple

from stillhouse.engine.interrupt import Interrupt, Stopped
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


def train_cells(cells: Sequence[Cell], jobs: int, done: Done) -> Mapping[Path, Score]:
    """Train every cell and say when each is done; what is finished already is only read.

    A stop that is asked for reaches the processes too, which save and end; the others wait.
    """
    scores: dict[Path, Score] = {}
    with Interrupt() as interrupt, pool(min(jobs, len(cells))) as workers:
        left = {workers.submit(train_cell, cell): cell for cell in cells}
        while left:
            ready, _ = wait(left, timeout=0.2, return_when=FIRST_COMPLETED)
            for future in ready:
                cell = left.pop(future)
                if not future.cancelled():
                    scores[cell.folder] = future.result()
                    done(cell, scores[cell.folder])
            if interrupt.asked:
                stop(workers, left)
    return scores


def stop(workers: ProcessPoolExecutor, left: Mapping[Future[Score], Cell]) -> None:
    """Let the trainings under way save, begin no other, and end."""
    for process in active_children():
        process.terminate()  # which a training takes as a request, as Ctrl-C
    workers.shutdown(wait=True, cancel_futures=True)
    raise Stopped


@contextmanager
def pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes, which inherit no threads and no locks."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"  # read when a process starts
    try:
        context = get_context("spawn")
        with ProcessPoolExecutor(jobs, context, initializer=ignore_interrupts) as made:
            yield made
    finally:
        os.environ.pop("OMP_NUM_THREADS")
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before


def ignore_interrupts() -> None:
    """Leave Ctrl-C to the parent, which asks in its own way; a terminal sends it to all."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)


def train_cell(cell: Cell) -> Score:
    """One training in a process of its own."""
    return run_cell(cell.recipe, cell.folder)
