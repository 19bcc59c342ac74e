"""Teacher, control and two methods on embedded data: does it help?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from stillhouse.objectives import presets
from stillhouse.recipes import load
from stillhouse.recipes.build import Workshop
from stillhouse.recipes.execute import Score, obtain_teacher
from stillhouse.recipes.schema import Control, Recipe
from stillhouse.study.cells import Cell, processes, train_cells
from stillhouse.study.statistics import paired_interval, spread

RECIPE = "digits/numbers"
CONTROL = "none"
# With the papers' own weights; nothing here was chosen by looking at the demo's test split.
METHODS: dict[str, Any] = {CONTROL: Control(), "kd": presets.kd(), "dkd": presets.dkd(warmup=1.0)}


@dataclass(frozen=True)
class Study:
    """Scores of the test split by method, one a seed, beside the teacher's."""

    recipe: Recipe
    headline: str
    teacher: Score
    scores: dict[str, list[Score]]

    def values(self, method: str) -> list[float]:
        """The headline of each seed."""
        return [score["test"][self.headline] for score in self.scores[method]]

    def answers(self) -> list[str]:
        """One line a method: did it help?"""
        return [self.answer(method) for method in self.scores if method != CONTROL]

    def answer(self, method: str) -> str:
        """Student, control and teacher, and the gain with its interval."""
        ours, control = self.values(method), self.values(CONTROL)
        gain = paired_interval(ours, control)
        teacher = self.teacher["test"][self.headline]
        return (
            f"{method.upper()}: student {mean(ours):.1f} ± {spread(ours):.1f}, "
            f"control {mean(control):.1f} ± {spread(control):.1f}, teacher {teacher:.1f}: "
            f"{gain.mean:+.1f} (95 % interval {gain.low:.1f} … {gain.high:.1f}, {len(ours)} seeds)"
        )


def demonstrate(folder: Path, seeds: int, epochs: float, say: Callable[[str], None]) -> Study:
    """Train everything, the control with the same seeds; what is finished already is read."""
    recipe = load.load(RECIPE, [f"train.epochs={epochs}", "engine.evaluate_every=5"])
    shop = Workshop.open(recipe)
    assert recipe.teacher is not None
    say(f"data: {len(shop.sources.train)} images of two handwritten digits, 100 classes")
    _, teacher = obtain_teacher(recipe, recipe.teacher, shop, say)
    headline = shop.task.headline
    say(f"teacher: {recipe.teacher.name}, {headline} {teacher['test'][headline]:.1f}")
    cells = {
        (name, seed): cell_of(recipe, name, seed, folder)
        for seed in range(seeds)
        for name in METHODS
    }

    def done(cell: Cell, score: Score) -> None:
        say(f"{cell.folder.name:<8} {headline} {score['test'][headline]:.1f}")

    say(f"training {len(cells)} students, {processes()} at a time")
    by_folder = train_cells(list(cells.values()), processes(), done)
    scores = {
        name: [by_folder[cells[name, seed].folder] for seed in range(seeds)] for name in METHODS
    }
    return Study(recipe, headline, teacher, scores)


def cell_of(recipe: Recipe, name: str, seed: int, folder: Path) -> Cell:
    """One student: a method, or the control, and a seed."""
    teacher = None if name == CONTROL else recipe.teacher
    said = replace(recipe, method=(METHODS[name],), seed=seed, teacher=teacher)
    return Cell(said, folder / f"{name}-{seed}")
