"""One run from recipe to result: teacher, gate, control, student."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from stillhouse.data.cache import cache_folder
from stillhouse.data.random import mix
from stillhouse.distributed import on_first_rank, rank
from stillhouse.engine import environment, state
from stillhouse.engine.evaluate import evaluate
from stillhouse.engine.folder import LOCK, MARK, claim
from stillhouse.engine.run import Run
from stillhouse.engine.train import train
from stillhouse.errors import UserError
from stillhouse.files import write_json, write_text
from stillhouse.models import cost, weights
from stillhouse.recipes import load
from stillhouse.recipes.build import Workshop, make_run
from stillhouse.recipes.contract import BESIDE
from stillhouse.recipes.gate import gate
from stillhouse.recipes.listener import Say, check_keeping, silent
from stillhouse.recipes.methods import make_method
from stillhouse.recipes.networks import (
    Taught,
    contract_of,
    example_of,
    make_network,
    make_student,
    make_teacher,
)
from stillhouse.recipes.schema import Control, Network, Recipe, Teacher
from stillhouse.recipes.sources import Given, make_training_loader, printed

RESULT = "result.json"
FORMAT = 2  # of a result
TEACHER = "teacher.json"  # what the teacher of a run reached
STUDENT = "student.safetensors"
Score = dict[str, Any]


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
    splits: Given | None = None,
) -> Result:
    """Train what the recipe says, and measure it.

    `splits` are sources by name (train, val, test) in place of the recipe's own: a torch data set
    becomes one by `data.FromTorch`.
    """
    if splits is not None:
        recipe = replace(recipe, data=printed(recipe.data, splits))
    shop = Workshop.open(recipe, splits=splits)
    if rank() != 0:
        say = silent  # the first rank speaks
    if recipe.taught:
        check_keeping(recipe)  # before anything is trained
    if overwrite:
        rehearse(recipe, shop)
    with claimed(recipe, folder, resume, overwrite):
        taught = teacher_score = None
        if recipe.teacher is not None and recipe.taught:
            taught, teacher_score = obtain_teacher(recipe, recipe.teacher, shop, say)
            on_first_rank(lambda: write_json(folder / TEACHER, teacher_score))
        control = None
        if recipe.control and recipe.taught:
            say("control: the same student without a teacher")
            alone = replace(recipe, method=(Control(),), teacher=None, control=False)
            control = train_one(alone, folder / "control", shop, None, resume=True)
        student = train_one(recipe, folder, shop, taught, resume=resume, say=say)
        return Result(folder, shop.task.headline, student, teacher_score, control)


def rehearse(recipe: Recipe, shop: Workshop) -> None:
    """Build what can be built, lest a recipe that cannot be run throw away one that was."""
    student = make_student(recipe.student, shop.sources)
    make_training_loader(recipe, shop.sources, shop.hardware.device)
    inner = None
    if recipe.teacher is not None and recipe.taught:
        path = teacher_file(recipe, recipe.teacher, shop)
        if path is None:
            return  # it is trained first
        inner = make_teacher(recipe.teacher, path, shop.sources).inner
    make_method(recipe.method, student, inner, example_of(shop.sources))


def run_cell(
    recipe: Recipe, folder: Path, *, until: float | None = None, blind: bool = False
) -> Score:
    """One training of many, without a word: its teacher was measured before all of them.

    `until` is an epoch to pause after; a `blind` one never looks at the test split.
    """
    shop = Workshop.open(recipe, quiet=True)
    taught = None
    if recipe.teacher is not None and recipe.taught:
        path = teacher_file(recipe, recipe.teacher, shop)
        if path is None:
            raise UserError(f"the teacher {recipe.teacher.name} is not trained yet")
        taught = make_teacher(recipe.teacher, path, shop.sources)
        taught.network.to(shop.hardware.device)
    with claimed(recipe, folder, True, False):
        return train_one(recipe, folder, shop, taught, resume=True, until=until, blind=blind)


@contextmanager
def claimed(recipe: Recipe, folder: Path, resume: bool, overwrite: bool) -> Iterator[None]:
    """A folder that this run alone writes, with the recipe and the environment in it."""
    digest = load.digest(recipe)

    def enter() -> Any:
        held = claim(folder, resume=resume, overwrite=overwrite, recipe=digest)
        write_text(folder / "recipe.yaml", load.text(recipe))
        if not (folder / RESULT).is_file():  # else it says where that was trained
            write_json(folder / "environment.json", environment.describe())
        return held

    # the claim itself stays on the first rank, whose process holds the lock
    held: list[Any] = []
    on_first_rank(lambda: held.append(enter()))
    try:
        yield
    except UserError:
        if rank() == 0:
            forget(folder)
        raise
    finally:
        for claim_ in held:
            claim_.release()


def forget(folder: Path) -> None:
    """Leave no trace of a run that failed before it began, lest it block the mended one."""
    written = {"recipe.yaml", "environment.json", TEACHER}
    if {path.name for path in folder.iterdir()} - {LOCK, MARK} <= written:
        for name in written:
            (folder / name).unlink(missing_ok=True)


def train_one(
    recipe: Recipe,
    folder: Path,
    shop: Workshop,
    taught: Taught | None,
    *,
    resume: bool,
    until: float | None = None,
    blind: bool = False,
    say: Say = silent,
) -> Score:
    """One training with its evaluation; what is finished already is read."""
    teacher = "" if taught is None else weights.state_hash(taught.network)
    done = on_first_rank(lambda: finished(recipe, folder, teacher, blind=blind))
    if done is not None:
        return done
    on_first_rank(lambda: folder.mkdir(parents=True, exist_ok=True))
    environment.seed_everything(recipe.seed, recipe.engine.deterministic)
    with make_run(recipe, folder, shop, taught, say) as run:
        run.taught_by = teacher
        torch.manual_seed(mix(recipe.seed, rank()))  # whatever building drew
        if resume:
            state.resume(run)
        run.pause = None if until is None else round(until * run.steps_per_epoch)
        train(run)
        if run.teacher.fingerprint() != teacher:
            raise UserError(
                f"the teacher {recipe.teacher and recipe.teacher.name} was changed by training; "
                "something writes into its weights or statistics, and the result means nothing"
            )
        if run.start < run.steps:
            state.save(run)
            return score_of(recipe, run, shop, {})
        return conclude(recipe, run, folder, shop, blind=blind)


def conclude(recipe: Recipe, run: Run, folder: Path, shop: Workshop, *, blind: bool) -> Score:
    """Measure the student as it ended, and write it with its result."""
    state.save(run)
    with state.averaged(run):
        network = run.inside.student.eval()
        test = {} if blind else evaluate(shop.task, network, shop.test(), shop.hardware)
        on_first_rank(lambda: weights.save(run.student, folder / STUDENT))
    score = score_of(recipe, run, shop, test)

    def write() -> None:
        contract = contract_of(recipe.student.name, shop.sources)
        write_text(folder / f"{STUDENT}{BESIDE}", contract.text())
        write_json(folder / "manifest.json", manifest(recipe, shop, run))
        write_json(folder / RESULT, score)  # last: it says that all the rest is there

    on_first_rank(write)
    return score


def score_of(recipe: Recipe, run: Run, shop: Workshop, test: Mapping[str, float]) -> Score:
    """What is known of a training where it stands."""
    return {
        "format": FORMAT,
        "name": recipe.student.name,
        "seed": recipe.seed,
        "recipe": load.digest(recipe),
        "teacher": run.taught_by,
        "headline": shop.task.headline,
        "test": dict(test),
        "validation": run.history[-1] if run.history else {},
        "history": run.history,
        "best": max(run.history, key=lambda h: h[shop.task.headline], default={}),
        "parameters": cost.parameters(run.student),
        "steps": run.start,
        "of": run.steps,
        "seconds": run.seconds,
    }


def manifest(recipe: Recipe, shop: Workshop, run: Run) -> Mapping[str, Any]:
    """What a result came from."""
    return {
        "recipe": load.digest(recipe),
        "teacher": run.taught_by,
        "student": weights.state_hash(run.student),
        "data": {
            name: source.fingerprint
            for name, source in (
                ("train", shop.sources.train),
                ("val", shop.sources.val),
                ("test", shop.sources.test),
            )
        },
        "seed": recipe.seed,
        "method": [method.name for method in recipe.method],
        "environment": environment.describe(),
    }


def finished(recipe: Recipe, folder: Path, teacher: str, *, blind: bool = False) -> Score | None:
    """The result that a folder holds of this very recipe and teacher, if it does."""
    path = folder / RESULT
    if not path.is_file() or not (folder / STUDENT).is_file():
        return None
    try:
        score = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(score, dict):
        return None
    same = score.get("recipe") == load.digest(recipe) and score.get("teacher") == teacher
    return score if same and (blind or score.get("test")) else None


# ------------------------------------------------------------------------------------ the teacher


def obtain_teacher(
    recipe: Recipe, teacher: Teacher, shop: Workshop, say: Say
) -> tuple[Taught, Score]:
    """The teacher from its file, or trained first and kept; refused if it is no good."""
    path = teacher_file(recipe, teacher, shop) or train_teacher(recipe, teacher, shop, say)
    taught = make_teacher(teacher, path, shop.sources)
    for note in taught.notes:
        say(f"teacher: {note}")
    return taught, check_teacher(teacher, taught, shop)


def check_teacher(
    teacher: Teacher, taught: Taught, shop: Workshop, *, blind: bool = False
) -> Score:
    """Measure a teacher on the user's own data, and refuse one that a guess could match."""
    taught.network.to(shop.hardware.device)
    network = shop.traced(taught.network)
    task = shop.task
    validation = evaluate(task, network, shop.val(), shop.hardware)
    if teacher.gate:
        gate(teacher.name, validation, task.headline, task.chance, len(shop.sources.val))
    test = {} if blind else evaluate(task, network, shop.test(), shop.hardware)
    return {
        "name": teacher.name,
        "parameters": cost.parameters(taught.inner),
        "test": dict(test),
        "validation": dict(validation),
    }


def teacher_file(recipe: Recipe, teacher: Teacher, shop: Workshop) -> Path | None:
    """The weights of the teacher; None where they are still to be trained."""
    if teacher.weights is not None:
        return teacher.weights
    alone = teacher_recipe(recipe, teacher)
    folder = teacher_folder(alone)
    done = on_first_rank(lambda: finished(alone, folder, ""))
    return folder / STUDENT if done is not None else None


def teacher_recipe(recipe: Recipe, teacher: Teacher) -> Recipe:
    """The recipe that trains the teacher: the same data, and what it says of itself."""
    if teacher.train is None:
        raise UserError(
            f"the teacher {teacher.name} has no weights: give teacher.weights=FILE, or say under "
            "teacher.train how it is to be trained first"
        )
    return replace(
        recipe,
        student=Network(teacher.name, options=teacher.options),
        method=(Control(),),
        teacher=None,
        control=False,
        train=teacher.train,
        seed=teacher.seed,
        title="",
    )


def teacher_folder(alone: Recipe) -> Path:
    """Where a trained teacher is kept, under the hash of its recipe."""
    return cache_folder() / "teachers" / load.digest(alone)


def train_teacher(recipe: Recipe, teacher: Teacher, shop: Workshop, say: Say) -> Path:
    """Train the teacher once."""
    alone = teacher_recipe(recipe, teacher)
    folder = teacher_folder(alone)
    say(f"teacher: training {teacher.name}, kept in {folder}")
    with claimed(alone, folder, True, False):
        train_one(alone, folder, shop, None, resume=True)
    return folder / STUDENT


# --------------------------------------------------------------------------------------- afterwards


def measure(recipe: Recipe, folder: Path, split: str, path: Path | None) -> Mapping[str, float]:
    """What the student of a run, or other weights for it, reach on a split."""
    shop = Workshop.open(recipe)
    file = path or folder / STUDENT
    if path is None and not file.is_file():
        raise UserError(
            f"{folder} has no {STUDENT} yet; finish it with `stillhouse run {folder} --resume`"
        )
    sources = shop.sources
    student = make_network(recipe.student, len(sources.classes), sources.channels, file)
    network = shop.traced(student.to(shop.hardware.device))
    return evaluate(shop.task, network, shop.split(split).epoch(0), shop.hardware)
