"""One training of many: what it is, how it ends, and the processes that do it side by side."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from stillhouse.engine.interrupt import Interrupt, Stopped, follow, heed
from stillhouse.errors import UserError
from stillhouse.files import write_json
from stillhouse.recipes import load
from stillhouse.recipes.schema import Recipe
from stillhouse.runs.execute import run_job
from stillhouse.runs.training import Score


class Cell(NamedTuple):
    """One training: what it is, where it is kept, and how far it goes."""

    recipe: Recipe
    folder: Path
    until: float | None = None  # epochs; None: to its end
    blind: bool = False  # never look at the test split


@dataclass(frozen=True)
class Failure:
    """Why a training came to nothing."""

    sentence: str


Outcome = Score | Failure
Done = Callable[[Cell, Outcome], None]


class Workers(Protocol):
    """Whoever trains cells: processes of this machine, or of many."""

    def train(self, cells: Sequence[Cell], done: Done) -> Mapping[Path, Outcome]:
        """Train every cell and say how each ended; what is finished already is only read."""
        ...


BUSY = threading.Lock()  # held while a cell is trained in this process


def train_cell(cell: Cell) -> Outcome:
    """One training in a process of its own; a mistake in one is a result and not an end of all."""
    try:
        with BUSY:
            score = run_job(cell.recipe, cell.folder, until=cell.until, blind=cell.blind)
    except UserError as error:
        return failed(cell, str(error))
    except (RuntimeError, MemoryError, ValueError, TypeError, OSError, ArithmeticError) as error:
        said = (str(error).splitlines() or [""])[0]
        alone = f"stillhouse run {cell.folder} --resume --debug"
        return failed(cell, f"{type(error).__name__}: {said}; see where with {alone}")
    failure_file(cell.folder).unlink(missing_ok=True)
    return score


def failure_file(folder: Path) -> Path:
    """Where the failure of a cell is kept: beside its folder, which only runs write into."""
    return folder.with_name(f"{folder.name}.failure.json")


def failed(cell: Cell, sentence: str) -> Failure:
    """The failure of a cell, written down."""
    with suppress(OSError, UserError):  # a full disk must not hide why it failed
        cell.folder.parent.mkdir(parents=True, exist_ok=True)
        content = {"sentence": sentence, "recipe": load.digest(cell.recipe)}
        write_json(failure_file(cell.folder), content)
    return Failure(sentence)


def read_failure(folder: Path) -> Failure | None:
    """Why the cell of a folder failed, if it did."""
    try:
        content = json.loads(failure_file(folder).read_text(encoding="utf-8"))
        return Failure(str(content["sentence"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


# ---------------------------------------------------------------------------------- on one machine


def processes() -> int:
    """One for each GPU, else one for each core that this process may use."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.device_count()
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Crew:
    """Processes that train cells, one after another, and are asked to stop as one.

    A process that dies takes its pool with it, and not the cells: those that may have killed it are
    trained again one by one, and one that dies alone is recorded as failed.
    """

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._pool: ProcessPoolExecutor | None = None

    def train(self, cells: Sequence[Cell], done: Done) -> Mapping[Path, Outcome]:
        """Train every cell and say how each ended; what is finished already is only read.

        A stop that is asked for ends it as an error does: those under way save, no other begins.
        """
        outcomes: dict[Path, Outcome] = {}

        def keep(cell: Cell, outcome: Outcome) -> None:
            outcomes[cell.folder] = outcome
            done(cell, outcome)

        with Interrupt() as interrupt:
            lost = self._attempt(cells, keep, interrupt)
            while lost:
                suspect, *others = lost
                if self._attempt([suspect], keep, interrupt):
                    keep(suspect, failed(suspect, DIED))
                lost = self._attempt(others, keep, interrupt)
        return outcomes

    def _attempt(self, cells: Sequence[Cell], keep: Done, interrupt: Interrupt) -> list[Cell]:
        """Train cells; those that had no end because a process died come back, suspects first."""
        left = {self._workers.submit(train_cell, cell): cell for cell in cells}
        while left:
            for future in wait(left, timeout=0.2, return_when=FIRST_COMPLETED).done:
                if isinstance(future.exception(), BrokenProcessPool):
                    return self._break(left)
                keep(left.pop(future), future.result())
            if interrupt.asked:
                raise Stopped
        return []

    def _break(self, left: Mapping[Future[Outcome], Cell]) -> list[Cell]:
        wait(left)
        self.close()
        begun = [(cell.folder / load.RECIPE).exists() for cell in left.values()]
        pairs = sorted(zip(begun, left.values(), strict=True), key=lambda pair: not pair[0])
        return [cell for _, cell in pairs]

    @property
    def _workers(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = get_context("spawn")  # which inherits no threads and no locks
            turns = context.Queue()
            for number in range(self._jobs):
                turns.put(number)
            self._pool = ProcessPoolExecutor(self._jobs, context, begin, (turns,))
        return self._pool

    def close(self, *, stop: bool = False) -> None:
        """Let the processes go; those that train are asked to save first."""
        if self._pool is None:
            return
        if stop:
            for process in active_children():
                process.terminate()  # which a training takes as a request to save and end
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = None


DIED = (
    "its process was killed by the system, alone as well as beside others; give it more memory, or "
    "a smaller data.batch"
)


def begin(turns: Any) -> None:
    """What a new process of a crew does first: note requests to stop, and take a GPU of its own."""
    heed()
    follow(os.getppid(), BUSY)
    import torch

    count = torch.cuda.device_count()
    if count:
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = given.split(",") if given else [str(number) for number in range(count)]
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[turns.get(timeout=60) % len(gpus)]


@contextmanager
def crew(jobs: int) -> Iterator[Crew]:
    """Fresh processes of one thread each; they end with the context."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"  # read when a process starts
    made = Crew(jobs)
    try:
        yield made
    except BaseException:
        made.close(stop=True)
        raise
    finally:
        made.close()
        os.environ.pop("OMP_NUM_THREADS")
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before
