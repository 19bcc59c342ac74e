"""Which trainings a study consists of, before any of them runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from stillhouse.data.transforms import is_random
from stillhouse.errors import UserError, did_you_mean
from stillhouse.objectives.presets import FeaturePreset
from stillhouse.recipes import load
from stillhouse.recipes.schema import Comparison, Plugged, Recipe, Store, Teacher
from stillhouse.study import words
from stillhouse.study.cells import Cell
from stillhouse.study.words import CONTROL, Choice


@dataclass(frozen=True)
class Arm:
    """One way to train the student, to be repeated over seeds."""

    label: str  # what tables call it
    method: str  # the method's label
    teacher: str  # the teacher's label; "" for the control
    control: str  # the label of the arm that it is compared with; its own for a control
    recipe: Recipe

    @property
    def is_control(self) -> bool:
        """Whether nobody teaches here."""
        return self.label == self.control


@dataclass(frozen=True)
class Plan:
    """Methods x teachers x grid, and the seeds of each."""

    recipe: Recipe  # with the study's section, from which the plan can be made again
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    teachers: Mapping[str, Teacher]
    notes: tuple[str, ...] = ()

    @property
    def controls(self) -> tuple[Arm, ...]:
        """The arms without a teacher."""
        return tuple(arm for arm in self.arms if arm.is_control)

    def methods(self) -> list[str]:
        """The labels of the methods, without the control."""
        return list(dict.fromkeys(arm.method for arm in self.arms if not arm.is_control))

    @cached_property
    def folders(self) -> dict[str, str]:
        """What the folder of each arm is called."""
        return words.labels(arm.label for arm in self.arms)

    @property
    def size(self) -> int:
        """How many trainings there are."""
        return len(self.arms) * len(self.seeds)

    def cell(self, arm: Arm, seed: int, folder: Path) -> Cell:
        """One training of an arm, and where it lies."""
        recipe = replace(arm.recipe, seed=self.recipe.seed + seed)
        return Cell(recipe, folder / self.folders[arm.label] / str(seed))

    def cells(self, folder: Path, arms: Sequence[Arm] | None = None) -> list[Cell]:
        """All trainings of some arms, seed by seed, so that every arm has early results."""
        chosen = self.arms if arms is None else arms
        return [self.cell(arm, seed, folder) for seed in self.seeds for arm in chosen]


def make_plan(
    recipe: Recipe,
    methods: str | None = None,
    seeds: int | None = None,
    teachers: str | None = None,
    grid: Sequence[str] = (),
) -> Plan:
    """The plan that a recipe and the words of a command ask for; the control is always in."""
    own = recipe.study or Comparison()
    names = named(recipe, own, methods)
    guides = words.teachers(teachers, recipe) if teachers else dict(own.teachers)
    if not guides:
        if recipe.teacher is None:
            raise UserError("a study needs a teacher; add a teacher to the recipe, or --teachers")
        guides = {recipe.teacher.name: recipe.teacher}
    section = Comparison(
        {label: load.changed(recipe, {"method": spelt}).method for label, spelt in names.items()},
        guides,
        own.seeds if seeds is None else seeds,
        words.grid(grid) or own.grid,
        {label: found for label, found in own.searched.items() if label in names},
    )
    whole = replace(recipe, study=section, control=False)
    arms, notes = make_arms(whole, section)
    return Plan(whole, tuple(arms), tuple(range(section.seeds)), guides, tuple(notes))


def named(recipe: Recipe, own: Comparison, methods: str | None) -> dict[str, Any]:
    """The methods by label: those of the command, else of the recipe's study, else its own."""
    listed = words.split(methods) if methods else [*own.methods] or [m.name for m in recipe.method]
    found = {w: words.method(w, recipe) for w in listed if w != CONTROL}
    if not found:
        raise UserError("a study compares methods with the control; name one besides none")
    return found


def make_arms(recipe: Recipe, section: Comparison) -> tuple[list[Arm], list[str]]:
    """The arms of every combination, each label once, and what did not apply where."""
    found: dict[str, Arm] = {}
    used: set[str] = set()
    every = words.combinations(section.grid)
    check_heads(section.grid)
    for combination in every:
        control = control_arm(recipe, combination)
        found.setdefault(control.label, control)
        used |= {choice.key for choice in combination if not of_method(choice)}
        for method in section.methods:
            fitting = tuple(c for c in combination if applies(c, recipe, method))
            used |= {choice.key for choice in fitting}
            for teacher in section.teachers:
                arm = taught_arm(recipe, section, method, teacher, fitting, control.label)
                found.setdefault(arm.label, arm)
    for key in section.grid.keys() - used:
        raise UserError(f"--grid: none of the methods has an option {key.partition('.')[2]!r}")
    arms = sorted(found.values(), key=lambda arm: not arm.is_control)
    return arms, grid_notes(every, recipe, section)


HEADS = ("method", "student", "train")


def check_heads(keys: Iterable[str]) -> None:
    """Refuse to vary what must be the same for all, or what has a word of its own."""
    for key in keys:
        head = key.partition(".")[0]
        if head not in HEADS:
            hint = "; say --teachers" if head == "teacher" else did_you_mean(head, HEADS)
            raise UserError(
                f"--grid: {key} is not varied by a study, only keys of {', '.join(HEADS)}{hint}"
            )


def grid_notes(
    every: Sequence[tuple[Choice, ...]], recipe: Recipe, section: Comparison
) -> list[str]:
    """A sentence for each method that a grid's key does not apply to."""
    keys = {choice.key: choice for choice in every[0]}
    return [
        f"{method} has no option {key.partition('.')[2]}, and stands in the grid once"
        for key, choice in keys.items()
        for method in section.methods
        if not applies(choice, recipe, method)
    ]


def of_method(choice: Choice) -> bool:
    """Whether a grid's key speaks of the method, which a control has not."""
    return choice.key.startswith("method.")


def applies(choice: Choice, recipe: Recipe, method: str) -> bool:
    """Whether a method has the option that a grid's key names."""
    assert recipe.study is not None
    found = recipe.study.methods[method]
    option = choice.key.split(".")[1] if of_method(choice) else ""
    return not of_method(choice) or (len(found) == 1 and hasattr(found[0], option))


def control_arm(recipe: Recipe, combination: Sequence[Choice]) -> Arm:
    """The same student without a teacher, under whatever the grid says of the rest."""
    rest = [choice for choice in combination if not of_method(choice)]
    label = " ".join([CONTROL, *(choice.short for choice in rest)])
    parts = {"method": {"name": CONTROL}, "teacher": None, "study": None}
    made = load.changed(recipe, parts, [choice.word for choice in rest])
    return Arm(label, CONTROL, "", label, made)


def taught_arm(
    recipe: Recipe,
    section: Comparison,
    method: str,
    teacher: str,
    fitting: Sequence[Choice],
    control: str,
) -> Arm:
    """One method under one teacher at one point of the grid."""
    several = len(section.teachers) > 1
    choices = [choice.short for choice in fitting]
    label = " ".join([method, *choices, *([f"from {teacher}"] if several else [])])
    guide = replace(recipe, teacher=section.teachers[teacher])
    parts = {
        "method": [load.plain_method(one) for one in section.methods[method]],
        "teacher": load.plain(guide)["teacher"],
        "study": None,
    }
    made = load.changed(recipe, parts, [choice.word for choice in fitting])
    return Arm(label, method, teacher, control, sharing(made))


def sharing(recipe: Recipe) -> Recipe:
    """The recipe with the teacher's answers in a store that all cells read, where there can be one.

    It keeps them in full precision unless the recipe asks for less, so that nothing changes by it.
    Methods that look inside the teacher ask the teacher itself.
    """
    teacher = recipe.teacher
    assert teacher is not None
    inside = any(isinstance(method, FeaturePreset | Plugged) for method in recipe.method)
    finite = recipe.data.views or not is_random(recipe.data.transforms)
    store = None if inside or not finite else teacher.store or Store(precision="full")
    return replace(recipe, teacher=replace(teacher, store=store, remember=False))
