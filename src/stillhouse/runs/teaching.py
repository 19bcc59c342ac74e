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
from stillhouse.build.workshop import Workshop
from stillhouse.runs.gate import gate
from stillhouse.build.teacher import Say
from stillhouse.build.networks import (
    Taught,
    make_teacher,
)
from stillhouse.methods.control import Control
from stillhouse.recipes.schema import Guide, Network, Recipe, Teacher
from stillhouse.runs.training import STUDENT, Score, claimed, finished, train_one


def obtain_teacher(
    recipe: Recipe, teacher: Teacher, shop: Workshop, say: Say
) -> tuple[Taught, Score]:
    """The teacher from its file, or trained first and kept; refused if it is no good."""
    paths = [
        guide_file(recipe, guide, shop) or train_guide(recipe, guide, shop, say)
        for guide in teacher.guides
    ]
    taught = make_teacher(teacher, paths, shop.sources)
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


def find_teacher(recipe: Recipe, teacher: Teacher, shop: Workshop) -> Taught | None:
    """The teacher, where all of it has weights."""
    paths = [guide_file(recipe, guide, shop) for guide in teacher.guides]
    there = [path for path in paths if path is not None]
    return make_teacher(teacher, there, shop.sources) if len(there) == len(paths) else None


def guide_file(recipe: Recipe, guide: Guide, shop: Workshop) -> Path | None:
    """The weights of a teacher or member; None where they are still to be trained."""
    if guide.weights is not None:
        return guide.weights
    alone = guide_recipe(recipe, guide)
    folder = guide_folder(alone)
    done = on_first_rank(lambda: finished(alone, folder, ""))
    return folder / STUDENT if done is not None else None


def guide_recipe(recipe: Recipe, guide: Guide) -> Recipe:
    """The recipe that trains a teacher or member: the same data, and what it says of itself."""
    if guide.train is None:
        raise UserError(
            f"the teacher {guide.name} has no weights: give teacher.weights=FILE, or say under "
            "teacher.train how it is to be trained first"
        )
    return replace(
        recipe,
        student=Network(guide.name, options=guide.options, head=guide.head, start=guide.start),
        method=(Control(),),
        teacher=None,
        control=False,
        train=guide.train,
        seed=guide.seed,
        title="",
        study=None,
    )


def guide_folder(alone: Recipe) -> Path:
    """Where a trained teacher is kept, under the hash of its recipe."""
    return cache_folder() / "teachers" / load.digest(alone)


def train_guide(recipe: Recipe, guide: Guide, shop: Workshop, say: Say) -> Path:
    """Train a teacher or member once."""
    alone = guide_recipe(recipe, guide)
    folder = guide_folder(alone)
    say(f"teacher: training {guide.name}, kept in {folder}")
    with claimed(alone, folder, True, False):
        train_one(alone, folder, shop, None, resume=True)
    return folder / STUDENT
