"""One run from recipe to result: teacher, gate, control, student."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stillhouse.build.data import SplitSources, make_training_loader, with_fingerprints
from stillhouse.build.networks import make_deployed
from stillhouse.build.run import make_pupil
from stillhouse.build.store import Say, silent
from stillhouse.build.teacher import check_storable
from stillhouse.build.workshop import Workshop
from stillhouse.distributed import on_first_rank, rank
from stillhouse.engine.evaluate import evaluate
from stillhouse.errors import UserError
from stillhouse.files import write_json
from stillhouse.methods.control import Control
from stillhouse.recipes.schema import Recipe
from stillhouse.runs.teaching import find_teacher, obtain_teacher
from stillhouse.runs.training import STUDENT, TEACHER, Score, claimed, train_one
from stillhouse.tasks.base import Task


@dataclass(frozen=True)
class Result:
    """What came of a run: scores of the test split, by who reached them."""

    folder: Path
    headline: str
    student: Score
    teacher: Score | None = None
    control: Score | None = None

    def lines(self) -> list[str]:
        """Teacher, control and student, a line each."""
        rows = {"teacher": self.teacher, "control": self.control, "student": self.student}
        return [
            f"{who:<8} {self.headline} {score['test'][self.headline]:6.2f}   "
            f"{score['parameters']:>10,} parameters   {score['name']}"
            for who, score in rows.items()
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
) -> Result:
    """Train what the recipe says, and measure it.

    `splits` are sources by name (train, val, test) in place of the recipe's own: a torch data set
    becomes one by `data.FromTorch`. `task` is a task of your own in place of the recipe's.
    """
    if splits is not None or task is not None:
        recipe = replace(recipe, data=with_fingerprints(recipe.data, splits or {}, task))
    shop = Workshop.open(recipe, splits=splits, task=task)
    if rank() != 0:
        say = silent  # the first rank speaks
    for note in shop.sources.notes:
        say(f"data: {note}")
    if recipe.distils:
        check_storable(recipe)  # before anything is trained
    if overwrite:
        try_build(recipe, shop)
    with claimed(recipe, folder, resume, overwrite):
        loaded = teacher_score = None
        if recipe.teacher is not None and recipe.distils:
            loaded, teacher_score = obtain_teacher(recipe, recipe.teacher, shop, say)
            on_first_rank(lambda: write_json(folder / TEACHER, teacher_score))
        control = None
        if recipe.control and recipe.distils:
            say("control: the same student without a teacher")
            alone = replace(recipe, method=(Control(),), teacher=None, control=False)
            control = train_one(alone, folder / "control", shop, None, resume=True)
        student = train_one(recipe, folder, shop, loaded, resume=resume, say=say)
        return Result(folder, shop.task.headline, student, teacher_score, control)


def try_build(recipe: Recipe, shop: Workshop) -> None:
    """Build everything once, so that a recipe which cannot run does not overwrite a run."""
    make_training_loader(recipe, shop.sources, shop.hardware.device)
    loaded = None
    if recipe.teacher is not None and recipe.distils:
        loaded = find_teacher(recipe, recipe.teacher, shop)
        if loaded is None:
            return  # it is trained first
    make_pupil(recipe, shop, loaded)


PATIENCE = 20.0  # seconds that a cell's process has to save and end when its study was killed


def run_cell(
    recipe: Recipe, folder: Path, *, until: float | None = None, blind: bool = False
) -> Score:
    """One training of many, without a word: its teacher was measured before all of them.

    `until` is an epoch to pause after; a `blind` one never looks at the test split.
    """
    shop = Workshop.open(recipe, quiet=True)
    loaded = None
    if recipe.teacher is not None and recipe.distils:
        loaded = find_teacher(recipe, recipe.teacher, shop)
        if loaded is None:
            raise UserError(f"the teacher {recipe.teacher.name} is not trained yet")
        loaded.network.to(shop.hardware.device)
    with claimed(recipe, folder, True, False, PATIENCE):
        return train_one(recipe, folder, shop, loaded, resume=True, until=until, blind=blind)


# --------------------------------------------------------------------------------------- afterwards


def measure(recipe: Recipe, folder: Path, split: str, path: Path | None) -> Mapping[str, float]:
    """What the student of a run, or other weights for it, reach on a split."""
    shop = Workshop.open(recipe)
    file = path or folder / STUDENT
    if path is None and not file.is_file():
        raise UserError(
            f"{folder} has no {STUDENT} yet; finish it with `stillhouse run {folder} --resume`"
        )
    student = make_deployed(recipe, shop.sources, file)
    network = shop.traced(student.to(shop.hardware.device))
    return evaluate(shop.task, network, shop.split(split).epoch(0), shop.hardware)
