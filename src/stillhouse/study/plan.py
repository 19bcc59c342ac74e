"""Which trainings a study consists of, before any of them runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from stillhouse.build.data import data_is_finite
from stillhouse.errors import UserError, did_you_mean
from stillhouse.methods.control import CONTROL, Control
from stillhouse.recipes import load
from stillhouse.recipes.schema import Comparison, Network, Recipe, StoreSpec, StudyPair, TeacherSpec
from stillhouse.study import words
from stillhouse.study.cells import Cell
from stillhouse.study.space import has
from stillhouse.study.words import Choice


@dataclass(frozen=True)
class Arm:
    """One way to train the student, to be repeated over seeds."""

    label: str  # what tables call it
    method: str  # the method's label
    teacher: str  # the teacher's label; "" for the control
    control: str  # the label of the arm that it is compared with; its own for a control
    recipe: Recipe
    pair: str = ""  # the label of its pair, where the study has pairs

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
    teachers: Mapping[str, TeacherSpec]
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
    pairs: str | None = None,
) -> Plan:
    """The plan that a recipe and the words of a command ask for; the control is always in."""
    own = recipe.study or Comparison()
    names = named(recipe, own, methods)
    if own.pairs and teachers:
        raise UserError("--teachers: this study has pairs, which name their teachers themselves")
    networks = words.teachers(teachers, recipe) if teachers else dict(own.teachers)
    if not networks and not own.pairs:
        if recipe.teacher is None:
            raise UserError("a study needs a teacher; add a teacher to the recipe, or --teachers")
        networks = {recipe.teacher.name: recipe.teacher}
    section = Comparison(
        {label: load.changed(recipe, {"method": spelt}).method for label, spelt in names.items()},
        networks,
        chosen_pairs(own, names, pairs),
        own.seeds if seeds is None else seeds,
        words.grid(grid) or own.grid,
        {label: found for label, found in own.searched.items() if label in names},
    )
    whole = replace(recipe, study=section, control=False)
    arms, notes = make_arms(whole, section)
    networks = networks | {label: pair.teacher for label, pair in section.pairs.items()}
    return Plan(whole, tuple(arms), tuple(range(section.seeds)), networks, tuple(notes))


def chosen_pairs(
    own: Comparison, names: Mapping[str, Any], words_: str | None
) -> dict[str, StudyPair]:
    """The pairs of a study, or those of them that are named, for the methods that are compared."""
    asked = words.split(words_) if words_ else list(own.pairs)
    for label in asked:
        if label not in own.pairs:
            hint = did_you_mean(label, own.pairs) or f"; there are {', '.join(own.pairs) or 'none'}"
            raise UserError(f"--pairs: the recipe has no pair {label!r}{hint}")
    kept = {*names, CONTROL, "teacher"}
    return {
        label: replace(
            own.pairs[label],
            methods={k: v for k, v in own.pairs[label].methods.items() if k in kept},
            paper={k: v for k, v in own.pairs[label].paper.items() if k in kept},
        )
        for label in asked
    }


def named(recipe: Recipe, own: Comparison, methods: str | None) -> dict[str, Any]:
    """The methods by label: those of the command, else of the recipe's study, else its own."""
    listed = words.split(methods) if methods else [*own.methods] or [m.name for m in recipe.method]
    found = {w: words.method(w, recipe) for w in listed if w != CONTROL}
    if not found:
        raise UserError("a study compares methods with the control; name one besides none")
    return found


@dataclass(frozen=True)
class Match:
    """Who teaches whom: the student of the recipe under one of its teachers, or a pair."""

    label: str
    student: Network
    teacher: TeacherSpec
    methods: Mapping[str, Any]
    changes: tuple[str, ...] = ()
    paired: bool = False

    @property
    def tail(self) -> list[str]:
        """What tells its control from others."""
        return [f"of {self.label}"] if self.paired else []


def matches(recipe: Recipe, section: Comparison) -> list[Match]:
    """The pairs of a study, or its student under each teacher."""
    if not section.pairs:
        return [
            Match(label, recipe.student, teacher, section.methods)
            for label, teacher in section.teachers.items()
        ]
    return [
        Match(label, pair.student, pair.teacher, section.methods | pair.methods, pair.changes, True)
        for label, pair in section.pairs.items()
    ]


def make_arms(recipe: Recipe, section: Comparison) -> tuple[list[Arm], list[str]]:
    """The arms of every combination, each label once, and what did not apply where."""
    found: dict[str, Arm] = {}
    used: set[str] = set()
    every = words.combinations(section.grid)
    check_heads(section.grid)
    several = len(section.teachers) > 1
    for combination in every:
        used |= {choice.key for choice in combination if not of_method(choice)}
        for match in matches(recipe, section):
            control = control_arm(recipe, combination, match)
            found.setdefault(control.label, control)
            for method in section.methods:
                fitting = tuple(c for c in combination if applies(c, match.methods[method]))
                used |= {choice.key for choice in fitting}
                tail = match.tail or ([f"from {match.label}"] if several else [])
                arm = taught_arm(recipe, match, method, fitting, control.label, tail)
                found.setdefault(arm.label, arm)
    for key in section.grid.keys() - used:
        raise UserError(f"--grid: none of the methods has an option {key.partition('.')[2]!r}")
    arms = sorted(found.values(), key=lambda arm: not arm.is_control)
    return arms, grid_notes(every, section)


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


def grid_notes(every: Sequence[tuple[Choice, ...]], section: Comparison) -> list[str]:
    """A sentence for each method that a grid's key does not apply to."""
    keys = {choice.key: choice for choice in every[0]}
    return [
        f"{method} has no option {key.partition('.')[2]}, and stands in the grid once"
        for key, choice in keys.items()
        for method, specs in section.methods.items()
        if not applies(choice, specs)
    ]


def of_method(choice: Choice) -> bool:
    """Whether a grid's key speaks of the method, which a control has not."""
    return choice.key.startswith("method.")


def applies(choice: Choice, specs: Sequence[Any]) -> bool:
    """Whether a method has the option that a grid's key names."""
    return not of_method(choice) or has(tuple(specs), choice.key)


def control_arm(recipe: Recipe, combination: Sequence[Choice], match: Match) -> Arm:
    """The same student without a teacher, under whatever the grid says of the rest."""
    rest = [choice for choice in combination if not of_method(choice)]
    label = " ".join([CONTROL, *(choice.short for choice in rest), *match.tail])
    alone = replace(recipe, student=match.student, method=(Control(),), teacher=None, study=None)
    made = load.changed(alone, {}, [*match.changes, *(choice.word for choice in rest)])
    return Arm(label, CONTROL, "", label, made, match.label if match.paired else "")


def taught_arm(
    recipe: Recipe,
    match: Match,
    method: str,
    fitting: Sequence[Choice],
    control: str,
    tail: Sequence[str],
) -> Arm:
    """One method of one match at one point of the grid."""
    label = " ".join([method, *(choice.short for choice in fitting), *tail])
    taught = replace(recipe, student=match.student, teacher=match.teacher, study=None)
    parts = {"method": [load.plain_method(one) for one in match.methods[method]]}
    made = load.changed(taught, parts, [*match.changes, *(choice.word for choice in fitting)])
    pair = match.label if match.paired else ""
    return Arm(label, method, match.label, control, sharing(made), pair)


def sharing(recipe: Recipe) -> Recipe:
    """The recipe with the teacher's answers in a store that all cells read, where there can be one.

    It keeps them in full precision unless the recipe asks for less, so that nothing changes by it.
    Methods that look inside the teacher ask the teacher itself.
    """
    teacher = recipe.teacher
    assert teacher is not None
    inside = teacher.teach == "apart" or not all(method.storable for method in recipe.method)
    finite = data_is_finite(recipe.data)
    store = None if inside or not finite else teacher.store or StoreSpec(precision="full")
    return replace(recipe, teacher=replace(teacher, store=store, remember=False))
