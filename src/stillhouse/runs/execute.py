"""A run of a recipe: teacher, gate, control and student."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stillhouse.build.data import SplitSources, make_training_loader, with_fingerprints
from stillhouse.build.networks import make_deployed, untrained_teacher
from stillhouse.build.run import make_pupil
from stillhouse.build.session import Session
from stillhouse.build.store import Say, silent
from stillhouse.build.teacher import check_storable
from stillhouse.distributed import on_first_rank, rank
from stillhouse.engine.evaluate import evaluate
from stillhouse.errors import UserError
from stillhouse.files import write_json
from stillhouse.methods.control import Control
from stillhouse.models.factories import trust_factories
from stillhouse.recipes.schema import Recipe
from stillhouse.runs.chance import empty_class_notes
from stillhouse.runs.teacher import find_teacher, member_folder, obtain_teacher
from stillhouse.runs.training import (
    STUDENT,
    TEACHER,
    Score,
    claim_folder,
    claim_when_free,
    run_training,
)
from stillhouse.tasks.base import Task


@dataclass(frozen=True)
class Result:
    """The scores of a run: those of the student, and of teacher and control if there are any."""

    folder: Path
    headline: str
    student: Score
    teacher: Score | None = None
    control: Score | None = None

    def lines(self) -> list[str]:
        """The test score of teacher, control and student as text, a line each."""
        rows = {"teacher": self.teacher, "control": self.control, "student": self.student}
        return [
            f"{role:<8} {self.headline} {score['test'][self.headline]:6.2f}   "
            f"{score['parameters']:>10,} parameters   {score['name']}"
            for role, score in rows.items()
            if score is not None
        ]


def execute(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    say: Say = print,
    splits: SplitSources | None = None,
    task: Task[Any] | None = None,
    trust: bool = False,
) -> Result:
    """Train and evaluate the student of a recipe, and its teacher and control as needed.

    `splits` are sources by name (train, val, test) that replace the recipe's; `data.FromTorch`
    makes a source of a torch data set. `task` replaces the recipe's task. `say` prints messages.
    With `trust`, the recipe may name networks as `package.module:factory`, which runs their code.
    """
    with trust_factories(trust):
        return execute_recipe(recipe, folder, resume, overwrite, say, splits, task)


def execute_recipe(
    recipe: Recipe,
    folder: Path,
    resume: bool,
    overwrite: bool,
    say: Say,
    splits: SplitSources | None,
    task: Task[Any] | None,
) -> Result:
    """Train the teacher, the control and the student of a recipe, as far as it has them."""
    if splits is not None or task is not None:
        recipe = replace(recipe, data=with_fingerprints(recipe.data, splits or {}, task))
    session = Session.open(recipe, splits=splits, task=task)
    if rank() != 0:
        say = silent  # only the first rank prints
    for note in session.sources.notes:
        say(f"data: {note}")
    for note in empty_class_notes(session.sources.train):
        say(f"warning: {note}")
    if recipe.distils:
        check_storable(recipe)  # before anything is trained
    try_build(recipe, session, overwrite)
    with claim_folder(recipe, folder, resume, overwrite):
        loaded = teacher_score = None
        if recipe.teacher is not None and recipe.distils:
            loaded, teacher_score = obtain_teacher(recipe, recipe.teacher, session, say)
            if teacher_score is not None:
                on_first_rank(lambda: write_json(folder / TEACHER, teacher_score))
        control = None
        if recipe.control and recipe.distils:
            say("control: the same student without a teacher")
            control_recipe = replace(recipe, method=(Control(),), teacher=None, control=False)
            control = run_training(control_recipe, folder / "control", session, None, resume=True)
        student = run_training(recipe, folder, session, loaded, resume=resume, say=say)
        for warning in student.get("warnings", ()):
            say(f"warning: {warning}")
        return Result(folder, session.task.headline, student, teacher_score, control)


def try_build(recipe: Recipe, session: Session, overwrite: bool) -> None:
    """Build loader and pupil, so that a recipe which cannot run costs no training and no run.

    Only where a run would be overwritten, or where teacher or control are trained before.
    """
    loaded = None
    if recipe.teacher is not None and recipe.distils:
        loaded = find_teacher(recipe, recipe.teacher, session)
        if loaded and not (overwrite or recipe.control):
            return
        loaded = loaded or untrained_teacher(recipe.teacher, session)
    elif not overwrite:
        return
    make_training_loader(recipe, session.sources, session.hardware.device)
    make_pupil(recipe, session, loaded)


LOCK_TIMEOUT = 20.0  # seconds to wait for a folder whose process is being stopped


def run_job(
    recipe: Recipe, folder: Path, *, until: float | None = None, blind: bool = False
) -> Score:
    """One training of a study, without messages; its teacher must be trained already.

    `until` is an epoch to stop after; with `blind`, the test split is not used.
    """
    session = Session.open(recipe, quiet=True)
    loaded = None
    if recipe.teacher is not None and recipe.distils:
        loaded = find_teacher(recipe, recipe.teacher, session)
        if loaded is None:
            raise UserError(
                f"the teacher {recipe.teacher.name} is not trained yet; run the study, which "
                "trains it first"
            )
        loaded.network.to(session.hardware.device)
    is_teacher = folder == member_folder(recipe)  # which another study may need, too
    if is_teacher:
        claim = claim_when_free(recipe, folder, session.hardware.device)
    else:
        claim = claim_folder(recipe, folder, True, False, LOCK_TIMEOUT)
    with claim:
        return run_training(recipe, folder, session, loaded, resume=True, until=until, blind=blind)


# --------------------------------------------------------------------------------------- afterwards


def evaluate_run(
    recipe: Recipe, folder: Path, split: str, path: Path | None
) -> Mapping[str, float]:
    """The scores of a run's student on a split, with the weights of `path` if given."""
    session = Session.open(recipe)
    if split == "train" and session.sources.alone:
        raise UserError("no training image has labels; evaluate the student on val or test")
    weights = path or folder / STUDENT
    if path is None and not weights.is_file():
        raise UserError(
            f"{folder} has no {STUDENT} yet; finish it with `stillhouse run {folder} --resume`"
        )
    student = make_deployed(recipe, session.sources, weights)
    network = session.traced(student.to(session.hardware.device))
    return evaluate(
        session.task, network, session.split(split).epoch(0), session.hardware, "student"
    )
