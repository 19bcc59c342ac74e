"""The same cells on a cluster, by Ray; every machine must see the study's folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stillhouse.data.cache import cache_folder
from stillhouse.engine.interrupt import Interrupt, Stopped
from stillhouse.errors import UserError
from stillhouse.study.jobs import Cell, Done, Outcome, failed, train_cell


def train_there(cell: Cell, here: str) -> Outcome:
    """One training on some machine, where relative paths mean what they mean here."""
    os.chdir(here)
    return train_cell(cell)


class Cluster:
    """Cells as Ray's tasks, each with the cores and GPUs that it is given."""

    def __init__(self, ray: Any, cpus: float, gpus: float) -> None:
        self._ray = ray
        # a training that dies takes itself up where it saved, so Ray may try it again
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": 1}
        self._task = ray.remote(**options)(train_there)

    def train(self, cells: Sequence[Cell], done: Done) -> Mapping[Path, Outcome]:
        """Train every cell and say how each ended; what is finished already is only read."""
        outcomes: dict[Path, Outcome] = {}
        left = {self._task.remote(cell, os.getcwd()): cell for cell in cells}
        with Interrupt() as interrupt:
            while left:
                ready, _ = self._ray.wait([*left], timeout=0.2)
                for task in ready:
                    cell = left.pop(task)
                    outcomes[cell.folder] = self._outcome(task, cell)
                    done(cell, outcomes[cell.folder])
                if interrupt.asked:
                    self._stop(left)
                    raise Stopped
        return outcomes

    def _outcome(self, task: Any, cell: Cell) -> Outcome:
        try:
            found: Outcome = self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            said = (str(error).splitlines() or [""])[0]
            return failed(cell, f"its machine lost it, twice ({said}); see Ray's own log")
        return found

    def _stop(self, left: Mapping[Any, Cell]) -> None:
        for task in left:
            self._ray.cancel(task)  # as Ctrl-C would: a training saves and ends
        self._ray.wait([*left], num_returns=len(left), timeout=60)


def environment(cpus: float) -> dict[str, str]:
    """What a training on any machine needs to know of this one."""
    cache = str(cache_folder().absolute())
    return {"OMP_NUM_THREADS": str(max(1, int(cpus))), "STILLHOUSE_CACHE": cache}


@contextmanager
def cluster(address: str, cpus: float = 1, gpus: float = 0) -> Iterator[Cluster]:
    """A connection to a cluster by its address or `auto`; `local` makes one of this machine."""
    try:
        import ray
    except ImportError as error:
        raise UserError("--ray needs the extra: pip install 'stillhouse[ray]'") from error
    try:
        # Ray's own words go to its log: a study prints a line a cell, and no more.
        ray.init(
            address=None if address == "local" else address,
            log_to_driver=False,
            include_dashboard=False if address == "local" else None,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": environment(cpus)},
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"--ray {address}: no cluster answers ({said}); is it up?") from error
    try:
        yield Cluster(ray, cpus, gpus)
    finally:
        ray.shutdown()
