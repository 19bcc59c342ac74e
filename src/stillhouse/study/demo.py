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
from stillhouse.recipes.execute import Score, teacher_folder, teacher_recipe
from stillhouse.recipes.gate import gate
from stillhouse.recipes.schema import Control, Recipe
from stillhouse.study.cells import Cell, crew, processes
from stillhouse.study.statistics import paired_interval, spread

RECIPE = "digits/numbers"
CONTROL = "none"
SHORTER = ("teacher.train.epochs=10", "engine.evaluate_every=5", "engine.tensorboard=false")
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
    recipe = load.load(RECIPE, [f"train.epochs={epochs}", *SHORTER])
    assert recipe.teacher is not None
    shop = Workshop.open(recipe)
    headline, jobs = shop.task.headline, processes()
    images = len(shop.sources.train)
    say(f"data: {images} images of two handwritten digits, 100 classes, made here")
    say(f"training {recipe.teacher.name} and the control, {jobs} at a time")

    def done(cell: Cell, score: Score) -> None:
        name = cell.folder.name if cell.folder.parent == folder else "teacher"
        say(f"{name:<8} {headline} {score['test'][headline]:.1f}")

    cells = {(n, s): cell_of(recipe, n, s, folder) for n in METHODS for s in range(seeds)}
    first = [cell for (name, _), cell in cells.items() if name == CONTROL]
    rest = [cell for cell in cells.values() if cell not in first]
    master = teacher_cell(recipe)
    with crew(min(jobs, len(rest))) as workers:
        found = dict(workers.train([master, *first], done))
        teacher = found[master.folder]
        images = len(shop.sources.val)
        gate(recipe.teacher.name, teacher["validation"], headline, shop.task.chance, images)
        say(f"training {len(rest)} students with it")
        found |= workers.train(rest, done)
    scores = {n: [found[cells[n, s].folder] for s in range(seeds)] for n in METHODS}
    return Study(recipe, headline, teacher, scores)


def teacher_cell(recipe: Recipe) -> Cell:
    """The training of the teacher, kept where every run of this recipe looks for it."""
    assert recipe.teacher is not None
    alone = teacher_recipe(recipe, recipe.teacher)
    return Cell(alone, teacher_folder(alone))


def cell_of(recipe: Recipe, name: str, seed: int, folder: Path) -> Cell:
    """One student: a method, or the control, and a seed."""
    teacher = None if name == CONTROL else recipe.teacher
    said = replace(recipe, method=(METHODS[name],), seed=seed, teacher=teacher)
    return Cell(said, folder / f"{name}-{seed}")
