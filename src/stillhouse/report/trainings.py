"""The trainings on a page: their curves, and how long they took on which machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from stillhouse.engine import records
from stillhouse.engine.environment import describe_device
from stillhouse.engine.progress import format_clock
from stillhouse.errors import UserError
from stillhouse.explain.roles import CONTROL, STUDENT, TEACHER
from stillhouse.explain.section import Cell, Chart, Table
from stillhouse.explain.training_curves import training_curves
from stillhouse.files import read_json
from stillhouse.recipes import load
from stillhouse.recipes.schema import Recipe
from stillhouse.runs.scores import Score, parse_score
from stillhouse.runs.teacher import member_folder, member_recipe
from stillhouse.runs.training import RESULT

ENVIRONMENT = "environment.json"


class Training(NamedTuple):
    """One training: its recipe, the folder of its records and result, and that of its run."""

    recipe: Recipe
    folder: Path
    run: Path  # has the environment

    @property
    def score(self) -> Score | None:
        """Its result; None where there is none that can be read."""
        try:
            return read_json(self.folder / RESULT, parse_score, "train it again")
        except UserError:
            return None

    @property
    def epochs_per_step(self) -> float | None:
        """The share of an epoch in one step."""
        steps = (self.score or {}).get("of")
        return self.recipe.train.epochs / steps if steps else None

    @property
    def machine(self) -> str | None:
        """The device that it ran on."""
        try:
            return read_json(
                self.run / ENVIRONMENT,
                lambda content: describe_device(content, self.recipe.engine.device),
                "it is left out",
            )
        except UserError:
            return None


def run_trainings(folder: Path, recipe: Recipe) -> dict[str, Training]:
    """The trainings of a run by role; that of the teacher only if it is in the cache."""
    found = {**teacher_trainings(recipe)}
    found[CONTROL] = Training(recipe, folder / "control", folder)
    found[STUDENT] = Training(recipe, folder, folder)
    return {name: one for name, one in found.items() if has_records(one.folder)}


def teacher_trainings(recipe: Recipe) -> dict[str, Training]:
    """The trainings of the teacher, or of its members by name, in the cache folder."""
    if recipe.teacher is None or not recipe.distils:
        return {}
    members = [one for one in recipe.teacher.networks if one.weights is None and one.train]
    found = {}
    for number, member in enumerate(members, 1):
        training = member_recipe(recipe, member)
        folder = member_folder(training)
        name = TEACHER if len(recipe.teacher.networks) == 1 else f"{TEACHER} {number}"
        found[name] = Training(training, folder, folder)
    return found


def one_training(folder: Path) -> Training:
    """The training of the student of a run."""
    return Training(load.load_resolved(folder / load.RECIPE_FILE), folder, folder)


def has_records(folder: Path) -> bool:
    """Whether a folder has the records of a training."""
    return (folder / records.LINES).is_file()


def training_charts(trainings: Mapping[str, Training], headline: str) -> tuple[Chart, ...]:
    """The curves of several trainings by name."""
    runs = {name: records.read_records(one.folder) for name, one in trainings.items()}
    lengths = {name: one.epochs_per_step for name, one in trainings.items()}
    epochs = {name: length for name, length in lengths.items() if length is not None}
    return training_curves(runs, headline, epochs)


def training_tables(trainings: Mapping[str, Training]) -> tuple[Table, ...]:
    """Network, epochs, steps, time and machine of each training that has a result."""
    rows: list[tuple[Cell, ...]] = []
    for name, one in trainings.items():
        if (score := one.score) is not None:
            network, epochs = one.recipe.student.name, f"{one.recipe.train.epochs:g}"
            time = format_clock(float(score.get("seconds") or 0))
            rows.append((name, network, epochs, score.get("steps"), time, one.machine))
    if not rows:
        return ()
    columns = ("training", "network", "epochs", "steps", "time", "machine")
    return (Table(columns, tuple(rows), "Time of training"),)
