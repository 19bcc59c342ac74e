"""What pages of every kind share: costs, curves, scores, and notes of what cannot be had."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

from stillhouse.build.workshop import Workshop
from stillhouse.engine import records
from stillhouse.engine.environment import device_name
from stillhouse.errors import UserError
from stillhouse.explain import course
from stillhouse.explain.section import Cell, Chart, Section, Table
from stillhouse.recipes.schema import Recipe
from stillhouse.report.model import Cost
from stillhouse.runs.costs import Priced as Spec
from stillhouse.runs.costs import costs_of, measure
from stillhouse.runs.training import Score

PAGE = "report.html"
T = TypeVar("T")
Named = Mapping[str, Spec]


class Priced(NamedTuple):
    """What each network takes, and where that was measured."""

    costs: tuple[Cost, ...] = ()
    machine: str = ""


class Draft:
    """A page in the making: a part that cannot be had becomes a note, and the rest is shown."""

    def __init__(self, recipe: Recipe, notes: tuple[str, ...] = ()) -> None:
        self.notes = list(notes)
        self.shop = self.tried(lambda: opened(recipe), None)

    def tried(self, make: Callable[[], T], otherwise: T) -> T:
        """A part, or what stands for it when it cannot be had."""
        try:
            return make()
        except UserError as error:
            self.notes.append(str(error))
            return otherwise

    def priced(self, named: Named, folder: Path | None = None) -> Priced:
        """The costs of networks: those that a folder keeps, else measured now."""
        shop = self.shop
        return (
            Priced() if shop is None else self.tried(lambda: price(named, shop, folder), Priced())
        )

    def sections(self, make: Callable[[Workshop], tuple[Section, ...]]) -> tuple[Section, ...]:
        """Diagnoses, where the data are there."""
        shop = self.shop
        return () if shop is None else self.tried(lambda: make(shop), ())

    def curves(self, folders: Mapping[str, Path], headline: str) -> tuple[Chart, ...]:
        """The course of several runs by name."""
        return self.tried(lambda: curves_of(folders, headline), ())


def opened(recipe: Recipe) -> Workshop | None:
    """The data of a recipe."""
    return Workshop.open(recipe, quiet=True)


def price(named: Named, shop: Workshop, folder: Path | None) -> Priced:
    """What each network takes."""
    if folder is None:
        found, where = {who: measure(one, shop) for who, one in named.items()}, device_name()
    else:
        content = costs_of(folder, shop, named)
        found, where = content["networks"], content["machine"]
    return Priced(tuple(Cost(who, **one) for who, one in found.items()), where)


def curves_of(folders: Mapping[str, Path], headline: str) -> tuple[Chart, ...]:
    """The charts of what several runs recorded."""
    found = course.section(
        {who: records.read_records(path) for who, path in folders.items()}, headline
    )
    return () if found is None else found.charts


def score_table(scores: Mapping[str, Score]) -> Table:
    """Everything that was measured on test, a row a network."""
    names = list(dict.fromkeys(name for score in scores.values() for name in score["test"]))
    rows: list[tuple[Cell, ...]] = [
        (who, *(score["test"].get(name) for name in names)) for who, score in scores.items()
    ]
    return Table(("who", *names), tuple(rows), "Measured on the test split")


def environment_text(folder: Path) -> str:
    """Where a run ran, as it wrote it down."""
    path = folder / "environment.json"
    try:
        return json.dumps(json.loads(path.read_text(encoding="utf-8")), indent=2)
    except (OSError, ValueError):
        return f"{path} cannot be read"
