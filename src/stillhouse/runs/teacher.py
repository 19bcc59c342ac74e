"""The teacher of a recipe: loaded, or trained first if it has no weights, and evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from stillhouse.build.networks import TeacherNetwork, load_teacher, untrained_teacher
from stillhouse.build.session import Session
from stillhouse.build.store import Say
from stillhouse.data.cache import cache_folder
from stillhouse.distributed import on_first_rank
from stillhouse.engine.evaluate import evaluate
from stillhouse.errors import UserError
from stillhouse.methods.control import Control
from stillhouse.models import cost
from stillhouse.recipes import load
from stillhouse.recipes.schema import Network, Recipe, TeacherMember, TeacherSpec
from stillhouse.runs.gate import gate
from stillhouse.runs.scores import Score
from stillhouse.runs.training import STUDENT, claim_when_free, read_result, run_training

SCORES = {"logits", "head", "moves", "boxes", "masks"}  # needs of methods that read its outputs


def obtain_teacher(
    recipe: Recipe,
    teacher: TeacherSpec,
    session: Session,
    say: Say,
    opened: OpenedTeacher | None = None,
) -> tuple[TeacherNetwork, Score | None]:
    """The teacher and its scores; members without weights are trained first, in the cache folder.

    `opened` is the same teacher, if it was loaded before. A teacher of other classes, of which only
    features are used, has no scores. Raises UserError for one that does not pass the gate.
    """
    if opened is not None and opened.trained:
        loaded = opened.network
        say_kept(recipe, teacher, say)
    else:
        paths = [
            member_weights(recipe, member, session) or train_member(recipe, member, session, say)
            for member in teacher.networks
        ]
        blind = compares_features(recipe)
        loaded = load_teacher(teacher, paths, session, features_only=blind)
    for note in loaded.notes:
        say(f"teacher: {note}")
    return loaded, None if loaded.features_only else check_teacher(teacher, loaded, session)


def say_kept(recipe: Recipe, teacher: TeacherSpec, say: Say) -> None:
    """Name the members that an earlier run has trained."""
    for member in teacher.networks:
        if member.weights is None:
            folder = member_folder(member_recipe(recipe, member))
            say(f"teacher: {member.name} was trained before, in {folder}")


def compares_features(recipe: Recipe) -> bool:
    """Whether all methods read features of the teacher, and none its scores or its head."""
    needs = [set(method.needs) for method in recipe.method]
    return all("features" in need and not need & SCORES for need in needs)


def check_teacher(
    teacher: TeacherSpec, loaded: TeacherNetwork, session: Session, *, blind: bool = False
) -> Score:
    """Evaluate a teacher on the data; raises UserError if it does not pass the gate.

    With `blind`, the test split is not used.
    """
    if loaded.features_only:
        raise UserError(
            f"the teacher {teacher.name} has other classes than the data, so that it cannot be "
            "measured on them; set teacher.classes to the names of its classes"
        )
    loaded.network.to(session.hardware.device)
    network = session.traced(loaded.network)
    task = session.task
    name = f"teacher {teacher.name}"
    validation = evaluate(task, network, session.val(), session.hardware, name)
    if teacher.gate:
        gate(teacher.name, task, validation, len(session.sources.val))
    test: Mapping[str, float] = {}
    if not blind and session.score_split == "test":
        test = evaluate(task, network, session.measured(), session.hardware, name)
    return {
        "name": teacher.name,
        "parameters": cost.parameters(loaded.inner),
        "test": dict(test),
        "validation": dict(validation),
    }


def find_teacher(recipe: Recipe, teacher: TeacherSpec, session: Session) -> TeacherNetwork | None:
    """The teacher with its weights; None if a member is still to be trained."""
    paths = [member_weights(recipe, member, session) for member in teacher.networks]
    found = [path for path in paths if path is not None]
    if len(found) < len(paths):
        return None
    return load_teacher(teacher, found, session, features_only=compares_features(recipe))


class OpenedTeacher(NamedTuple):
    """A teacher with its weights, or with random ones where it is still to be trained."""

    network: TeacherNetwork
    trained: bool


def open_teacher(recipe: Recipe, teacher: TeacherSpec, session: Session) -> OpenedTeacher:
    """The teacher with its weights; with random ones where a member is still to be trained."""
    loaded = find_teacher(recipe, teacher, session)
    if loaded is not None:
        return OpenedTeacher(loaded, True)
    return OpenedTeacher(untrained_teacher(teacher, session), False)


def member_weights(recipe: Recipe, member: TeacherMember, session: Session) -> Path | None:
    """The path to the weights of a teacher or member; None if they are still to be trained.

    Raises UserError for one that was trained on other images than those of `train`.
    """
    if member.weights is not None:
        return member.weights
    training = member_recipe(recipe, member)
    folder = member_folder(training)
    data = session.describe_data()
    result = on_first_rank(lambda: read_result(training, folder, "", data, splits=("train",)))
    return folder / STUDENT if result is not None else None


def member_recipe(recipe: Recipe, member: TeacherMember) -> Recipe:
    """The recipe that trains a teacher or member, on the same data without distillation.

    Raises UserError for a member that has neither weights nor `train`.
    """
    if member.train is None:
        raise UserError(
            f"the teacher {member.name} has no weights; set teacher.weights=FILE, or describe "
            "under teacher.train how it is trained first"
        )
    return replace(
        recipe,
        student=Network(
            member.name, options=member.options, head=member.head, pretrained=member.pretrained
        ),
        data=replace(recipe.data, unlabelled=None),
        method=(Control(),),
        teacher=None,
        control=False,
        train=member.train,
        seed=member.seed,
        title="",
        study=None,
    )


def member_folder(training: Recipe) -> Path:
    """The cache folder of a trained teacher, named by the hash of its recipe."""
    return cache_folder() / "teachers" / load.digest(training)


def train_member(recipe: Recipe, member: TeacherMember, session: Session, say: Say) -> Path:
    """Train a teacher or member in its cache folder; returns the path to its weights."""
    training = member_recipe(recipe, member)
    folder = member_folder(training)
    with claim_when_free(training, folder, session.hardware.device, say):
        run_training(
            training, folder, session.labelled(), None, resume=True, say=say, role="teacher"
        )
    return folder / STUDENT
