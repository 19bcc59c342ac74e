"""A run of a recipe: teacher, gate, control and student."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from stillhouse.build.data import with_fingerprints
from stillhouse.build.networks import make_deployed
from stillhouse.build.session import Session
from stillhouse.build.splits import SplitSources
from stillhouse.build.store import Say, silent
from stillhouse.data.record import ScoreSplit
from stillhouse.distributed import on_first_rank, rank
from stillhouse.engine.devices import describe_excess_workers
from stillhouse.engine.evaluate import evaluate
from stillhouse.errors import UserError
from stillhouse.files import write_json
from stillhouse.models.factories import trust_factories
from stillhouse.recipes.schema import Recipe
from stillhouse.runs.chance import empty_class_notes
from stillhouse.runs.checks import TrainingChecks, check_run, control_recipe
from stillhouse.runs.run_plan import describe_plan
from stillhouse.runs.scores import Score, optimistic_note
from stillhouse.runs.teacher import OpenedTeacher, find_teacher, member_folder, obtain_teacher
from stillhouse.runs.training import (
    CONTROL_FOLDER,
    RESULT,
    STUDENT,
    TEACHER,
    claim_folder,
    claim_when_free,
    read_result,
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

    @property
    def split(self) -> ScoreSplit:
        """The split that the scores were measured on."""
        split: ScoreSplit = self.student["split"]
        return split

    def lines(self) -> list[str]:
        """The score of teacher, control and student as text, a line each."""
        rows = {"teacher": self.teacher, "control": self.control, "student": self.student}
        return [
            f"{role:<8} {self.headline} {score[self.split][self.headline]:6.2f} on {self.split}   "
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
    if session.score_split == "validation":
        say(f"warning: {optimistic_note(recipe)}")
    for note in empty_class_notes(session.sources.train):
        say(f"warning: {note}")
    if crowded := describe_excess_workers(recipe.engine.workers):
        say(f"warning: {crowded}")
    opened, plan = None, []
    if not (resume and (folder / RESULT).is_file()):  # a finished run is only read
        checked = check_run(recipe, TrainingChecks(recipe, session), folder)
        opened = checked.opened
        plan = describe_plan(recipe, session, checked, folder)
        del checked  # and with it the networks of the checks
    kept = (CONTROL_FOLDER,) if overwrite and has_control(recipe, folder, session) else ()
    if kept:
        say(
            "control: kept, because its own recipe has not changed; delete "
            f"{folder / CONTROL_FOLDER} to train it again"
        )
    with claim_folder(recipe, folder, resume, overwrite, kept=kept):
        for line in plan:
            say(line)
        return train_all(recipe, folder, session, opened, resume, say)


def train_all(
    recipe: Recipe,
    folder: Path,
    session: Session,
    opened: OpenedTeacher | None,
    resume: bool,
    say: Say,
) -> Result:
    """Train what is not finished yet, in a folder that this process has claimed."""
    loaded = teacher_score = None
    if recipe.teacher is not None and recipe.distils:
        loaded, teacher_score = obtain_teacher(recipe, recipe.teacher, session, say, opened)
        if teacher_score is not None:
            on_first_rank(lambda: write_json(folder / TEACHER, teacher_score))
    control = None
    if recipe.control and recipe.distils:
        control = run_training(
            control_recipe(recipe),
            folder / CONTROL_FOLDER,
            session,
            None,
            resume=True,
            say=say,
            role="control",
        )
    student = run_training(recipe, folder, session, loaded, resume=resume, say=say)
    for warning in student.get("warnings", ()):
        say(f"warning: {warning}")
    return Result(folder, session.task.headline, student, teacher_score, control)


def has_control(recipe: Recipe, folder: Path, session: Session) -> bool:
    """Whether a folder has the finished control of a recipe, trained on the same data."""
    if not (recipe.control and recipe.distils):
        return False
    control, data = control_recipe(recipe), session.describe_data()
    with suppress(UserError):  # of a control that was trained on other data
        return read_result(control, folder / CONTROL_FOLDER, "", data) is not None
    return False


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


class Evaluation(NamedTuple):
    """The scores of a student on a number of images of a split."""

    split: str  # train, validation or test
    images: int
    scores: Mapping[str, float]


def evaluate_run(recipe: Recipe, folder: Path, split: str | None, path: Path | None) -> Evaluation:
    """The scores of a run's student, with the weights of `path` if given.

    `split` is train, val or test; by default the one that the scores of the run are of.
    """
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
    name = split or ("val" if session.score_split == "validation" else "test")
    batches = session.split(name).epoch(0)
    scores = evaluate(session.task, network, batches, session.hardware, "student")
    shown = "validation" if name == "val" else name
    return Evaluation(shown, len(session.sources.by_name[name]), scores)
