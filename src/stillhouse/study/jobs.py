"""One training of a study as a job, and the processes that run jobs in parallel."""

from __future__ import annotations

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

from stillhouse.engine.devices import available_cores
from stillhouse.engine.interrupt import Interrupt, Stopped, defer_signals, exit_with_parent
from stillhouse.errors import UserError
from stillhouse.files import read_json, write_json
from stillhouse.models.factories import factories_are_trusted, trust_factories, trust_word
from stillhouse.recipes import load
from stillhouse.recipes.schema import Recipe
from stillhouse.runs.execute import run_job
from stillhouse.runs.scores import Score


class Job(NamedTuple):
    """One training: its recipe, its folder, and how far it goes."""

    recipe: Recipe
    folder: Path
    until: float | None = None  # the epoch after which it pauses; None: train to the end
    blind: bool = False  # never evaluate on the test split


@dataclass(frozen=True)
class Failure:
    """A job that failed, with one sentence that says why."""

    message: str


Outcome = Score | Failure
OnDone = Callable[[Job, Outcome], None]


class Workers(Protocol):
    """Runs jobs: in processes of this machine, or on a cluster."""

    def train(self, jobs: Sequence[Job], on_done: OnDone) -> Mapping[Path, Outcome]:
        """Run all jobs and return the outcome of each by folder; finished jobs are only read."""
        ...


TRAINING = threading.Lock()  # held while this process trains a job
PROCESS_DIED = (
    "the system killed its process, also when it ran alone; use a machine with more memory or a "
    "smaller data.batch"
)


def train_job(job: Job, trust: bool = False) -> Outcome:
    """Run one job in this process; an error becomes a `Failure`, so that other jobs continue.

    `trust` says that recipes may name networks by their module, as where the job was made.
    """
    try:
        with TRAINING, trust_factories(trust):
            score = run_job(job.recipe, job.folder, until=job.until, blind=job.blind)
    except UserError as error:
        return record_failure(job, str(error))
    except (RuntimeError, MemoryError, ValueError, TypeError, OSError, ArithmeticError) as error:
        reason = (str(error).splitlines() or [""])[0]
        command = f"stillhouse run {job.folder} --resume --debug{trust_word()}"
        return record_failure(job, f"{type(error).__name__}: {reason}; for a traceback: {command}")
    failure_path(job.folder).unlink(missing_ok=True)
    return score


def failure_path(folder: Path) -> Path:
    """The file with the failure of a job: next to its folder, which only runs write into."""
    return folder.with_name(f"{folder.name}.failure.json")


def record_failure(job: Job, message: str) -> Failure:
    """Write down why a job failed."""
    with suppress(OSError, UserError):  # a full disk must not hide the reason
        job.folder.parent.mkdir(parents=True, exist_ok=True)
        content = {"sentence": message, "recipe": load.digest(job.recipe)}
        write_json(failure_path(job.folder), content)
    return Failure(message)


def read_failure(folder: Path) -> Failure | None:
    """The recorded failure of the job with this folder; None if there is none."""
    try:
        return read_json(failure_path(folder), lambda one: Failure(str(one["sentence"])), "")
    except UserError:
        return None


# ---------------------------------------------------------------------------------- on one machine


def default_processes() -> int:
    """One process for each GPU, else one for each core that this process may use."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.device_count()
    return available_cores()


class ProcessWorkers:
    """A pool of processes that run jobs and are stopped together.

    A process that dies breaks the pool, but loses no job: the jobs that were running are repeated
    one by one, and a job whose process also dies when it runs alone is recorded as failed.
    """

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._pool: ProcessPoolExecutor | None = None

    def train(self, jobs: Sequence[Job], on_done: OnDone) -> Mapping[Path, Outcome]:
        """Run all jobs and return the outcome of each by folder; finished jobs are only read.

        Raises:
            Stopped: if the user asked to stop. Running jobs save their state; no other job starts.
        """
        outcomes: dict[Path, Outcome] = {}

        def keep(job: Job, outcome: Outcome) -> None:
            outcomes[job.folder] = outcome
            on_done(job, outcome)

        with Interrupt() as interrupt:
            lost = self._attempt(jobs, keep, interrupt)
            while lost:
                suspect, *others = lost
                if self._attempt([suspect], keep, interrupt):
                    keep(suspect, record_failure(suspect, PROCESS_DIED))
                lost = self._attempt(others, keep, interrupt)
        return outcomes

    def _attempt(self, jobs: Sequence[Job], keep: OnDone, interrupt: Interrupt) -> list[Job]:
        """Run jobs; return those that a dead process left without an outcome, suspects first."""
        trust = factories_are_trusted()
        pending = {self._executor.submit(train_job, job, trust): job for job in jobs}
        while pending:
            for future in wait(pending, timeout=0.2, return_when=FIRST_COMPLETED).done:
                if isinstance(future.exception(), BrokenProcessPool):
                    return self._discard_pool(pending)
                keep(pending.pop(future), future.result())
            if interrupt.requested:
                raise Stopped
        return []

    def _discard_pool(self, pending: Mapping[Future[Outcome], Job]) -> list[Job]:
        wait(pending)
        self.close()
        # A job that had started may have killed its process.
        return sorted(
            pending.values(), key=lambda job: not (job.folder / load.RECIPE_FILE).exists()
        )

    @property
    def _executor(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = get_context("spawn")  # which inherits no threads and no locks
            numbers = context.Queue()
            for number in range(self._processes):
                numbers.put(number)
            given = (numbers, os.getpid())
            self._pool = ProcessPoolExecutor(self._processes, context, init_worker, given)
        return self._pool

    def close(self, *, stop: bool = False) -> None:
        """End the processes; with `stop` running jobs are asked to save and end first."""
        if self._pool is None:
            return
        if stop:
            for process in active_children():
                process.terminate()  # a training takes this as a request to save and end
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = None


def init_worker(numbers: Any, parent: int) -> None:
    """Initialise a process of the pool: handle requests to stop, and choose a GPU.

    `numbers` is a queue with one number for each process, `parent` the id of the process that has
    the pool. It may have ended before this one asks for the id of its parent.
    """
    defer_signals()
    exit_with_parent(parent, TRAINING)
    import torch

    count = torch.cuda.device_count()
    if count:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = visible.split(",") if visible else [str(number) for number in range(count)]
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[numbers.get(timeout=60) % len(gpus)]


@contextmanager
def process_workers(processes: int) -> Iterator[ProcessWorkers]:
    """Workers in so many new processes of one thread each; they end with the context."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"  # read when a process starts
    workers = ProcessWorkers(processes)
    try:
        yield workers
    except BaseException:
        workers.close(stop=True)
        raise
    finally:
        workers.close()
        os.environ.pop("OMP_NUM_THREADS")
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before
