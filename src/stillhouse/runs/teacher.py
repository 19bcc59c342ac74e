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
from stillhouse.build.session import Session
from stillhouse.runs.gate import gate
from stillhouse.build.store import Say
from stillhouse.build.networks import (
    TeacherNetwork,
    load_teacher,
)
from stillhouse.methods.control import Control
from stillhouse.recipes.schema import TeacherMember, Network, Recipe, TeacherSpec
from stillhouse.runs.training import STUDENT, Score, claimed, finished, train_one


def obtain_teacher(
    recipe: Recipe, teacher: TeacherSpec, session: Session, say: Say
) -> tuple[TeacherNetwork, Score]:
    """The teacher from its file, or trained first and kept; refused if it is no good."""
    paths = [
        member_weights(recipe, member, session) or train_member(recipe, member, session, say)
        for member in teacher.networks
    ]
    loaded = load_teacher(teacher, paths, session)
    for note in loaded.notes:
        say(f"teacher: {note}")
    return loaded, check_teacher(teacher, loaded, session)


def check_teacher(
    teacher: TeacherSpec, loaded: TeacherNetwork, session: Session, *, blind: bool = False
) -> Score:
    """Measure a teacher on the user's own data, and refuse one that a guess could match."""
    loaded.network.to(session.hardware.device)
    network = session.traced(loaded.network)
    task = session.task
    validation = evaluate(task, network, session.val(), session.hardware)
    if teacher.gate:
        gate(teacher.name, task, validation, len(session.sources.val))
    test = {} if blind else evaluate(task, network, session.test(), session.hardware)
    return {
        "name": teacher.name,
        "parameters": cost.parameters(loaded.inner),
        "test": dict(test),
        "validation": dict(validation),
    }


def find_teacher(recipe: Recipe, teacher: TeacherSpec, session: Session) -> TeacherNetwork | None:
    """The teacher, where all of it has weights."""
    paths = [member_weights(recipe, member, session) for member in teacher.networks]
    there = [path for path in paths if path is not None]
    return load_teacher(teacher, there, session) if len(there) == len(paths) else None


def member_weights(recipe: Recipe, member: TeacherMember, session: Session) -> Path | None:
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


def train_member(recipe: Recipe, member: TeacherMember, session: Session, say: Say) -> Path:
    """Train a teacher or member once."""
    alone = member_recipe(recipe, member)
    folder = member_folder(alone)
    say(f"teacher: training {member.name}, kept in {folder}")
    with claimed(alone, folder, True, False):
        train_one(alone, folder, session, None, resume=True)
    return folder / STUDENT
