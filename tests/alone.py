"""Workers that run the jobs of a study in this process, one after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from stillhouse.study.jobs import Job, OnDone, Outcome, train_job


class Alone:
    """Runs jobs and records their folders."""

    def __init__(self) -> None:
        self.folders: list[Path] = []

    def train(self, jobs: Sequence[Job], done: OnDone) -> Mapping[Path, Outcome]:
        outcomes: dict[Path, Outcome] = {}
        for job in jobs:
            self.folders.append(job.folder)
            outcomes[job.folder] = train_job(job)
            done(job, outcomes[job.folder])
        return outcomes
