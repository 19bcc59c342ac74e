"""Jobs on a Ray cluster, where every machine must see the folder of the study."""

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
from stillhouse.models.factories import factories_are_trusted
from stillhouse.study.jobs import Job, OnDone, Outcome, record_failure, train_job


def train_remote_job(job: Job, working_folder: str, trust: bool = False) -> Outcome:
    """Run a job on another machine, with relative paths as on the machine that sent it."""
    os.chdir(working_folder)
    return train_job(job, trust)


class RayWorkers:
    """Runs each job as a task of Ray with the given number of cores and GPUs."""

    def __init__(self, ray: Any, cpus: float, gpus: float) -> None:
        self._ray = ray
        # A job that died resumes from its checkpoint, so Ray may retry it.
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": 1}
        self._task = ray.remote(**options)(train_remote_job)

    def train(self, jobs: Sequence[Job], on_done: OnDone) -> Mapping[Path, Outcome]:
        """Run all jobs and return the outcome of each by folder; finished jobs are only read."""
        outcomes: dict[Path, Outcome] = {}
        place, trust = os.getcwd(), factories_are_trusted()
        pending = {self._task.remote(job, place, trust): job for job in jobs}
        with Interrupt() as interrupt:
            while pending:
                ready, _ = self._ray.wait([*pending], timeout=0.2)
                for task in ready:
                    job = pending.pop(task)
                    outcomes[job.folder] = self._outcome(task, job)
                    on_done(job, outcomes[job.folder])
                if interrupt.requested:
                    self._stop(pending)
                    raise Stopped
        return outcomes

    def _outcome(self, task: Any, job: Job) -> Outcome:
        try:
            outcome: Outcome = self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            reason = (str(error).splitlines() or [""])[0]
            return record_failure(job, f"Ray lost the task twice ({reason}); see the log of Ray")
        return outcome

    def _stop(self, pending: Mapping[Any, Job]) -> None:
        for task in pending:
            self._ray.cancel(task)  # as Ctrl-C would: a training saves and ends
        self._ray.wait([*pending], num_returns=len(pending), timeout=60)


def worker_environment(cpus: float) -> dict[str, str]:
    """The environment variables of a job on any machine: number of threads, and the cache."""
    cache = str(cache_folder().absolute())
    return {"OMP_NUM_THREADS": str(max(1, int(cpus))), "STILLHOUSE_CACHE": cache}


@contextmanager
def ray_workers(address: str, cpus: float = 1, gpus: float = 0) -> Iterator[RayWorkers]:
    """Workers on the Ray cluster at an address or `auto`; `local` starts one on this machine."""
    try:
        import ray
    except ImportError as error:
        raise UserError("--ray needs an extra: pip install 'stillhouse[ray]'") from error
    try:
        # Ray's own output goes to its log: a study prints one line for each job.
        ray.init(
            address=None if address == "local" else address,
            log_to_driver=False,
            include_dashboard=False if address == "local" else None,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": worker_environment(cpus)},
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"--ray {address}: cannot connect to the cluster ({reason}); check that it is running"
        ) from error
    try:
        yield RayWorkers(ray, cpus, gpus)
    finally:
        ray.shutdown()
