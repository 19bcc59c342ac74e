"""The teacher of a recipe: found, trained first where it has no weights, and looked at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from stillhouse.data.cache import cache_folder
from stillhouse.distributed import on_first_rank
from stillhouse.engine.evaluate import evaluate
from stillhouse.errors import UserError
from stillhouse.models import cost
from stillhouse.recipes import load
from stillhouse.recipes.build import Workshop
from stillhouse.recipes.gate import gate
from stillhouse.recipes.listener import Say
from stillhouse.recipes.networks import (
    Taught,
    make_teacher,
)
from stillhouse.recipes.schema import Control, Network, Recipe, Teacher
from stillhouse.recipes.training import STUDENT, Score, claimed, finished, train_one


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
