"""Running the jobs of a study; a study that was interrupted continues where it stopped."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stillhouse.build.session import Session
from stillhouse.build.store import Say
from stillhouse.engine.devices import describe_excess_workers, launched_world_size
from stillhouse.engine.folder import MARK, lock_folder
from stillhouse.errors import UserError
from stillhouse.files import write_json
from stillhouse.methods.control import Control
from stillhouse.recipes import load
from stillhouse.recipes.schema import Recipe
from stillhouse.runs.scores import optimistic_note
from stillhouse.study.checks import check_arms
from stillhouse.study.jobs import Failure, Job, Outcome, Workers, record_failure
from stillhouse.study.plan import Arm, StudyPlan
from stillhouse.study.results import TEACHERS_FILE, Study, read_study, write_plan
from stillhouse.study.teachers import StudyTeachers


def run_study(
    plan: StudyPlan, folder: Path, workers: Workers, say: Say = print, *, overwrite: bool = False
) -> Study:
    """Run all jobs of a plan that are not finished yet, and read the results of all.

    `overwrite` retrains jobs in the folder that were trained with other options.
    """
    refuse_torchrun()
    session = Session.open(plan.recipe, quiet=True)
    check_arms(plan, session, folder)
    with lock_folder(folder, resume=True, recipe=shared_digest(plan.recipe)):
        check_options(plan.jobs(folder), overwrite)
        write_plan(plan, folder, session.task.headline, session.score_split)
        StudyRunner(plan, folder, session, workers, say).run()
    return read_study(folder)


def refuse_torchrun() -> None:
    """Raise if there are several ranks: a study runs whole trainings in parallel instead."""
    if launched_world_size() > 1:
        raise UserError(
            "a study cannot run under torchrun, because it runs whole trainings in parallel; "
            "start it without torchrun and use --jobs, or --ray for several machines"
        )


def shared_digest(recipe: Recipe) -> str:
    """A hash of what all jobs of a study share.

    Methods, teachers and seeds are left out, so that more of them can be added later.
    """
    shared = replace(recipe, method=(Control(),), teacher=None, seed=0, study=None)
    return load.digest(shared)


def check_options(jobs: Sequence[Job], overwrite: bool) -> None:
    """Refuse folders of jobs trained with other options; with `overwrite` delete them."""
    for job in jobs:
        mark = job.folder / MARK
        if not mark.is_file():
            continue
        before = mark.read_text(encoding="utf-8", errors="replace").strip()
        if before == load.digest(job.recipe):
            continue
        if not overwrite:
            raise UserError(
                f"{job.folder} was trained with other options; choose another folder with --out, "
                "or add --overwrite to train such runs again"
            )
        shutil.rmtree(job.folder)


@dataclass
class StudyRunner:
    """Runs the jobs of a plan: teachers and controls first, then all arms with a teacher."""

    plan: StudyPlan
    folder: Path
    session: Session
    workers: Workers
    say: Say
    finished: int = 0

    def run(self) -> None:
        """Run all jobs."""
        plan = self.plan
        self.say(f"{len(plan.arms)} arms x {len(plan.seeds)} seeds: {plan.size} runs")
        for note in plan.notes:
            self.say(f"note: {note}")
        if self.session.score_split == "validation":
            self.say(f"warning: {optimistic_note(plan.recipe)}")
        if crowded := describe_excess_workers(plan.recipe.engine.workers):
            self.say(f"warning: {crowded}")
        teachers = StudyTeachers(plan.recipe, plan.teachers, self.session, self.say)
        teacher_jobs = teachers.prepare()
        controls = plan.jobs(self.folder, plan.controls)
        teachers.measure_trained(self.workers.train([*teacher_jobs, *controls], self.report))
        write_json(self.folder / TEACHERS_FILE, teachers.scores)
        for label, reason in teachers.rejected.items():
            for job in plan.jobs(self.folder, self.arms_of(label)):
                self.report(job, record_failure(job, reason))
        recipes = {label: [arm.recipe for arm in self.arms_of(label)] for label in plan.teachers}
        teachers.fill_stores(recipes)
        rejected = teachers.rejected
        arms = [arm for arm in plan.arms if not arm.is_control and arm.teacher not in rejected]
        self.workers.train(plan.jobs(self.folder, arms), self.report)

    def arms_of(self, teacher: str) -> list[Arm]:
        """The arms with a teacher, by its label."""
        return [arm for arm in self.plan.arms if arm.teacher == teacher]

    def report(self, job: Job, outcome: Outcome) -> None:
        """Print the outcome of a job."""
        if job.folder.parent.parent != self.folder:
            return  # a teacher, which is reported when it is measured
        self.finished += 1
        headline, split = self.session.task.headline, self.session.score_split
        arms = {name: label for label, name in self.plan.folders.items()}
        text = (
            f"failed: {outcome.message}"
            if isinstance(outcome, Failure)
            else f"{headline} {outcome[split][headline]:.1f} on {split}"
        )
        arm = arms[job.folder.parent.name]
        self.say(f"[{self.finished}/{self.plan.size}] {arm}, seed {job.folder.name}: {text}")
