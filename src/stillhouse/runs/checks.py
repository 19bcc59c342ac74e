"""The checks of trainings before anything is trained; data and teachers are opened once."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch

from stillhouse.build.networks import TeacherNetwork
from stillhouse.build.run import make_pupil
from stillhouse.build.session import Session
from stillhouse.build.teacher import check_storable
from stillhouse.errors import UserError
from stillhouse.methods.control import Control
from stillhouse.models import cost, zoo
from stillhouse.recipes.schema import Recipe
from stillhouse.runs.first_step import FirstStep, take_first_step
from stillhouse.runs.teacher import OpenedTeacher, compares_features, member_recipe, open_teacher

MEGABYTE = 2**20
CHECKPOINTS = 8  # the files of a run, in sizes of its student


@dataclass
class TrainingChecks:
    """Checks of several trainings; the data and teachers that they share are opened once."""

    recipe: Recipe
    session: Session
    _sessions: dict[str, Session] = field(default_factory=dict)
    _teachers: dict[str, OpenedTeacher] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._sessions[data_key(self.recipe)] = self.session

    def session_of(self, recipe: Recipe) -> Session:
        """The data, task and device of a recipe."""
        key = data_key(recipe)
        if key not in self._sessions:
            self._sessions[key] = Session.open(recipe, quiet=True)
        return self._sessions[key]

    def open_teacher(self, recipe: Recipe) -> OpenedTeacher | None:
        """The teacher of a recipe, as it is before training; None without distillation."""
        if recipe.teacher is None or not recipe.distils:
            return None
        spec = replace(recipe.teacher, store=None, remember=False)
        key = f"{data_key(recipe)} {spec} {compares_features(recipe)}"
        if key not in self._teachers:
            self._teachers[key] = open_teacher(recipe, recipe.teacher, self.session_of(recipe))
        return self._teachers[key]

    def check_training(self, recipe: Recipe, *, timed: bool = False) -> FirstStep:
        """Build everything that a training needs, and make its first step.

        With `timed`, its seconds are measured well. Raises UserError for a recipe that cannot be
        trained.
        """
        session = self.session_of(recipe)
        if recipe.distils:
            check_storable(recipe)  # before a network is built
        opened = self.open_teacher(recipe)
        # a copy, as methods set hooks and gradients of the teacher
        loaded: TeacherNetwork | None = None if opened is None else deepcopy(opened.network)
        pupil = make_pupil(recipe, session, loaded)
        return take_first_step(recipe, session, loaded, pupil, timed=timed)


class RunChecks(NamedTuple):
    """What the checks of a run found."""

    student: FirstStep
    teachers: tuple[tuple[Recipe, FirstStep], ...]  # of members that are still to be trained
    opened: OpenedTeacher | None


def check_run(recipe: Recipe, checks: TrainingChecks, folder: Path) -> RunChecks:
    """Check all trainings of a run and the disk; raises UserError for what would fail later."""
    student = checks.check_training(recipe, timed=True)
    opened = checks.open_teacher(recipe)
    teachers = [
        (training, checks.check_training(training, timed=True))
        for training in untrained_members(recipe, opened)
    ]
    if recipe.control and recipe.distils:
        checks.check_training(control_recipe(recipe))
    check_space(cost.size(student.student), folder)
    return RunChecks(student, tuple(teachers), opened)


def control_recipe(recipe: Recipe) -> Recipe:
    """The recipe of the same student without a teacher."""
    return replace(recipe, method=(Control(),), teacher=None, control=False)


def untrained_members(recipe: Recipe, opened: OpenedTeacher | None) -> list[Recipe]:
    """The recipes of the members of a teacher that are still to be trained."""
    if opened is None or opened.trained or recipe.teacher is None:
        return []
    members = (member for member in recipe.teacher.networks if member.weights is None)
    return [member_recipe(recipe, member) for member in members]


def data_key(recipe: Recipe) -> str:
    """What a session depends on, as text."""
    return f"{recipe.data} {recipe.task}"


def check_versions() -> str:
    """Check that torch and torchvision fit together."""
    try:
        import torchvision
    except (ImportError, RuntimeError) as error:
        raise UserError(
            f"torchvision cannot be imported with torch {torch.__version__} ({error}); install "
            "matching releases of both"
        ) from error
    return f"torch {torch.__version__}, torchvision {torchvision.__version__}"


def check_space(student_bytes: int, folder: Path) -> str:
    """Check that there is space for the checkpoints of a run."""
    needed = CHECKPOINTS * student_bytes
    free = shutil.disk_usage(existing_parent(folder)).free
    if free < 2 * needed:
        raise UserError(
            f"{free / MEGABYTE:,.0f} MB are free at {folder}, but checkpoints need about "
            f"{2 * needed / MEGABYTE:,.0f} MB; free some space or set another --out"
        )
    space = f"{free / MEGABYTE:,.0f} MB free at {folder}"
    return f"{space}, checkpoints need about {needed / MEGABYTE:,.1f} MB"


def existing_parent(path: Path) -> Path:
    """The path, or its nearest parent that exists."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def contract_notes(
    recipe: Recipe, session: Session, teacher: TeacherNetwork | None
) -> Sequence[str]:
    """Where classes, sizes and normalisations of the networks differ from those of the data."""
    sources = session.sources
    notes = list(teacher.notes) if teacher else []
    for network in (recipe.student, recipe.teacher):
        published = zoo.preprocessing(network.name) if network and network.weights else None
        data = (sources.mean, sources.std)
        if network and published and (published.mean, published.std) != data:
            notes.append(
                f"published weights of {network.name} expect mean {published.mean} and std "
                f"{published.std}, but the data have {sources.mean} and {sources.std}"
            )
    if teacher and teacher.unknown:
        notes.append(
            f"unknown: {', '.join(teacher.unknown)}; no file beside the weights says what the "
            "teacher was trained for, and the values of the data are used"
        )
    return notes
