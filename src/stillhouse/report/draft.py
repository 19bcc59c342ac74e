"""The parts that pages of every kind share; a part that fails becomes a note."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

from stillhouse.build.contract import read_contract
from stillhouse.build.session import Session
from stillhouse.errors import UserError
from stillhouse.explain.guard import failure_sentence
from stillhouse.explain.phrases import COUNTS, metric_name
from stillhouse.explain.section import Cell, Chart, Section, Table
from stillhouse.files import read_json
from stillhouse.recipes.schema import Recipe
from stillhouse.report.page import NetworkCost
from stillhouse.report.trainings import Training, training_charts
from stillhouse.runs.costs import NetworkSpec, costs_of, measure_costs
from stillhouse.runs.prediction_table import keep_predictions
from stillhouse.runs.scores import Score, optimistic_note
from stillhouse.runs.training import STUDENT

PAGE_FILE = "report.html"
T = TypeVar("T")


class PageCosts(NamedTuple):
    """The costs on a page, and the machine that they were measured on."""

    costs: tuple[NetworkCost, ...] = ()
    machine: str = ""


class Draft:
    """A page in progress: a part that cannot be made becomes a note, and the rest is shown."""

    def __init__(self, recipe: Recipe, notes: tuple[str, ...] = ()) -> None:
        self.notes = list(notes)
        self.session = self.attempt("The data", "opened", lambda: open_data(recipe), None)

    def attempt(self, what: str, action: str, make: Callable[[], T], default: T) -> T:
        """A part, or the default and a note where it raises an error."""
        try:
            return make()
        except UserError as error:
            self.notes.append(str(error))
        except Exception as error:
            self.notes.append(failure_sentence(what, error, action))
        return default

    def costs(self, specs: Mapping[str, NetworkSpec], folder: Path | None = None) -> PageCosts:
        """The costs of networks: those that a folder keeps, else measured now."""
        session = self.session
        if session is None:
            return PageCosts()
        costs = self.attempt(
            "The size and speed of the networks",
            "measured",
            lambda: costs_of(folder, session, specs) if folder else measure_costs(session, specs),
            None,
        )
        if costs is None:
            return PageCosts()
        self.notes += costs.failures
        rows = (NetworkCost(who, **one) for who, one in costs.networks.items())
        return PageCosts(tuple(rows), costs.machine)

    def predictions(self, folder: Path, recipe: Recipe) -> tuple[Path, ...]:
        """The table of the predictions; none where the data cannot be opened."""
        session = self.session
        if session is None:
            return ()
        table = self.attempt(
            "The predictions",
            "written",
            lambda: keep_predictions(folder, recipe, session),
            None,
        )
        return () if table is None else (table,)

    def sections(
        self, make: Callable[[Session | None], tuple[Section, ...]]
    ) -> tuple[Section, ...]:
        """Diagnoses; None is passed where the data cannot be opened."""
        return self.attempt("The diagnoses", "computed", lambda: make(self.session), ())

    def curves(self, trainings: Mapping[str, Training], headline: str) -> tuple[Chart, ...]:
        """The curves of several trainings by name."""
        return self.attempt(
            "The training curves", "read", lambda: training_charts(trainings, headline), ()
        )


def open_data(recipe: Recipe) -> Session | None:
    """The data, task and hardware of a recipe."""
    return Session.open(recipe, quiet=True)


def student_usage(folder: Path) -> tuple[str, ...]:
    """The lines of Python that load the student of a run, and what it takes."""
    try:
        contract = read_contract(folder / STUDENT)
    except UserError:
        contract = None
    if contract is None:
        return ()
    height, width = contract.size
    mean, std = ([round(value, 6) for value in x] for x in (contract.mean, contract.std))
    return (
        "import stillhouse as sh",
        f"student = sh.load_student({json.dumps(str(folder), ensure_ascii=False)})",
        f"outputs = student(images)  # float (N, {contract.channels}, {height}, {width})",
        f"# images = (pixels / 255 - mean) / std per channel, mean {mean}, std {std}",
    )


def score_table(scores: Mapping[str, Score], split: str) -> Table:
    """Every metric on a split, one row per network."""
    keys = list(dict.fromkeys(key for score in scores.values() for key in score[split]))
    rows: list[tuple[Cell, ...]] = [
        (who, *(metric_cell(key, score[split].get(key)) for key in keys))
        for who, score in scores.items()
    ]
    return Table(("network", *map(metric_name, keys)), tuple(rows), f"Metrics on {split}")


def split_notes(recipe: Recipe, split: str) -> tuple[str, ...]:
    """What scores are worth that are not of a test split."""
    return (optimistic_note(recipe),) if split == "validation" else ()


def metric_cell(key: str, value: float | None) -> Cell:
    """The value of a metric; a count as a whole number."""
    return int(value) if value is not None and key in COUNTS else value


def environment_text(folder: Path) -> str:
    """The environment of a run, as its folder has it."""
    path = folder / "environment.json"
    try:
        return json.dumps(read_json(path, dict, "it is left out"), indent=2)
    except UserError as error:
        return str(error)
