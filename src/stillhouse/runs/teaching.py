"""The teacher of a recipe: found, trained first where it has no weights, and looked at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from stillhouse.build.networks import (
    TeacherNetwork,
    load_teacher,
)
from stillhouse.build.store import Say
from stillhouse.build.workshop import Workshop
from stillhouse.data.cache import cache_folder
from stillhouse.distributed import on_first_rank
from stillhouse.engine.evaluate import evaluate
from stillhouse.errors import UserError
from stillhouse.methods.control import Control
from stillhouse.models import cost
from stillhouse.recipes import load
from stillhouse.recipes.schema import Network, Recipe, TeacherMember, TeacherSpec
from stillhouse.runs.gate import gate
from stillhouse.runs.training import STUDENT, Score, claimed, finished, train_one


def obtain_teacher(
    recipe: Recipe, teacher: TeacherSpec, shop: Workshop, say: Say
) -> tuple[TeacherNetwork, Score]:
    """The teacher from its file, or trained first and kept; refused if it is no good."""
    paths = [
        member_weights(recipe, member, shop) or train_member(recipe, member, shop, say)
        for member in teacher.networks
    ]
    loaded = load_teacher(teacher, paths, shop)
    for note in loaded.notes:
        say(f"teacher: {note}")
    return loaded, check_teacher(teacher, loaded, shop)


def check_teacher(
    teacher: TeacherSpec, loaded: TeacherNetwork, shop: Workshop, *, blind: bool = False
) -> Score:
    """Measure a teacher on the user's own data, and refuse one that a guess could match."""
    loaded.network.to(shop.hardware.device)
    network = shop.traced(loaded.network)
    task = shop.task
    validation = evaluate(task, network, shop.val(), shop.hardware)
    if teacher.gate:
        gate(teacher.name, task, validation, len(shop.sources.val))
    test = {} if blind else evaluate(task, network, shop.test(), shop.hardware)
    return {
        "name": teacher.name,
        "parameters": cost.parameters(loaded.inner),
        "test": dict(test),
        "validation": dict(validation),
    }


def find_teacher(recipe: Recipe, teacher: TeacherSpec, shop: Workshop) -> TeacherNetwork | None:
    """The teacher, where all of it has weights."""
    paths = [member_weights(recipe, member, shop) for member in teacher.networks]
    there = [path for path in paths if path is not None]
    return load_teacher(teacher, there, shop) if len(there) == len(paths) else None


def member_weights(recipe: Recipe, member: TeacherMember, shop: Workshop) -> Path | None:
    """The weights of a teacher or member; None where they are still to be trained."""
    if member.weights is not None:
        return member.weights
    alone = member_recipe(recipe, member)
    folder = member_folder(alone)
    done = on_first_rank(lambda: finished(alone, folder, ""))
    return folder / STUDENT if done is not None else None


def member_recipe(recipe: Recipe, member: TeacherMember) -> Recipe:
    """The recipe that trains a teacher or member: the same data, and what it says of itself."""
    if member.train is None:
        raise UserError(
            f"the teacher {member.name} has no weights: give teacher.weights=FILE, or say under "
            "teacher.train how it is to be trained first"
        )
    return replace(
        recipe,
        student=Network(member.name, options=member.options, head=member.head, start=member.start),
        method=(Control(),),
        teacher=None,
        control=False,
        train=member.train,
        seed=member.seed,
        title="",
        study=None,
    )


def member_folder(alone: Recipe) -> Path:
    """Where a trained teacher is kept, under the hash of its recipe."""
    return cache_folder() / "teachers" / load.digest(alone)


def train_member(recipe: Recipe, member: TeacherMember, shop: Workshop, say: Say) -> Path:
    """Train a teacher or member once."""
    alone = member_recipe(recipe, member)
    folder = member_folder(alone)
    say(f"teacher: training {member.name}, kept in {folder}")
    with claimed(alone, folder, True, False):
        train_one(alone, folder, shop, None, resume=True)
    return folder / STUDENT
