"""The plan of a study: its arms and seeds, before any training starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from stillhouse.build.data import data_is_finite
from stillhouse.errors import UserError, did_you_mean, quote
from stillhouse.methods.control import CONTROL, Control
from stillhouse.recipes import load
from stillhouse.recipes.schema import Comparison, Network, Recipe, StoreSpec, StudyPair, TeacherSpec
from stillhouse.study import arguments
from stillhouse.study.arguments import GridValue
from stillhouse.study.jobs import Job
from stillhouse.study.space import has_option


@dataclass(frozen=True)
class Arm:
    """One way to train the student, repeated for each seed."""

    label: str  # its name in tables
    method: str  # the label of the method
    teacher: str  # the label of the teacher; "" for a control
    control: str  # the label of the arm it is compared with; its own label for a control
    recipe: Recipe
    pair: str = ""  # the label of its pair, where the study has pairs

    @property
    def is_control(self) -> bool:
        """Whether the arm has no teacher."""
        return self.label == self.control


@dataclass(frozen=True)
class StudyPlan:
    """All arms of a study (methods x teachers x grid) and the seeds of each."""

    recipe: Recipe  # with the `study` section from which the plan can be made again
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
        """The folder name of each arm by its label."""
        return arguments.folder_names(arm.label for arm in self.arms)

    @property
    def size(self) -> int:
        """The number of jobs."""
        return len(self.arms) * len(self.seeds)

    def job(self, arm: Arm, seed: int, folder: Path) -> Job:
        """One training of an arm; `folder` is that of the study."""
        recipe = replace(arm.recipe, seed=self.recipe.seed + seed)
        return Job(recipe, folder / self.folders[arm.label] / str(seed))

    def jobs(self, folder: Path, arms: Sequence[Arm] | None = None) -> list[Job]:
        """The jobs of some arms or all, seed by seed, so that every arm has early results."""
        selected = self.arms if arms is None else arms
        return [self.job(arm, seed, folder) for seed in self.seeds for arm in selected]


def make_plan(
    recipe: Recipe,
    methods: str | None = None,
    seeds: int | None = None,
    teachers: str | None = None,
    grid: Sequence[str] = (),
    pairs: str | None = None,
) -> StudyPlan:
    """The plan for a recipe and the arguments of the command; it always includes the control.

    Arguments that are None or empty are taken from the `study` section of the recipe.
    """
    section = recipe.study or Comparison()
    specs = select_methods(recipe, section, methods)
    if section.pairs and teachers:
        raise UserError("--teachers: this study has pairs, and each pair has its own teacher")
    selected = arguments.parse_teachers(teachers, recipe) if teachers else dict(section.teachers)
    if not selected and not section.pairs:
        if recipe.teacher is None:
            raise UserError("a study needs a teacher; add one to the recipe or with --teachers")
        selected = {recipe.teacher.name: recipe.teacher}
    section = Comparison(
        {
            label: load.replace_sections(recipe, {"method": spec}).method
            for label, spec in specs.items()
        },
        selected,
        select_pairs(section, specs, pairs),
        section.seeds if seeds is None else seeds,
        arguments.parse_grid(grid) or section.grid,
        {label: changes for label, changes in section.changes.items() if label in specs},
        {label: search for label, search in section.searched.items() if label in specs},
    )
    resolved = replace(recipe, study=section, control=False)
    arms, notes = make_arms(resolved, section)
    all_teachers = selected | {label: pair.teacher for label, pair in section.pairs.items()}
    return StudyPlan(resolved, tuple(arms), tuple(range(section.seeds)), all_teachers, tuple(notes))


def select_pairs(
    section: Comparison, methods: Mapping[str, Any], argument: str | None
) -> dict[str, StudyPair]:
    """The pairs that `--pairs` names, or all, restricted to the methods that are compared."""
    labels = arguments.split_list(argument) if argument else list(section.pairs)
    for label in labels:
        if label not in section.pairs:
            hint = did_you_mean(label, section.pairs)
            hint = hint or f"; choose from {', '.join(section.pairs) or 'none'}"
            raise UserError(f"--pairs: the recipe has no pair {quote(label)}{hint}")
    kept = {*methods, CONTROL, "teacher"}
    return {
        label: replace(
            section.pairs[label],
            methods={k: v for k, v in section.pairs[label].methods.items() if k in kept},
            paper={k: v for k, v in section.pairs[label].paper.items() if k in kept},
        )
        for label in labels
    }


def select_methods(
    recipe: Recipe, section: Comparison, argument: str | None
) -> dict[str, list[dict[str, Any]]]:
    """The methods by label: of `--methods`, else of the `study` section, else of the recipe."""
    names = [*section.methods] or [method.name for method in recipe.method]
    items = arguments.split_list(argument) if argument else names
    specs = {item: arguments.parse_method(item, recipe) for item in items if item != CONTROL}
    if not specs:
        raise UserError(f"a study compares methods with the control; name one besides {CONTROL}")
    return specs


@dataclass(frozen=True)
class NetworkPair:
    """A student with its teacher: a pair of the study, or its student with one of its teachers."""

    label: str
    student: Network
    teacher: TeacherSpec
    methods: Mapping[str, Any]
    changes: tuple[str, ...] = ()
    is_pair: bool = False

    @property
    def suffix(self) -> list[str]:
        """What distinguishes the labels of its arms from those of other pairs."""
        return [f"of {self.label}"] if self.is_pair else []


def make_network_pairs(student: Network, section: Comparison) -> list[NetworkPair]:
    """The pairs of a study, or its student with each teacher."""
    if not section.pairs:
        return [
            NetworkPair(label, student, teacher, section.methods)
            for label, teacher in section.teachers.items()
        ]
    return [
        NetworkPair(
            label, pair.student, pair.teacher, section.methods | pair.methods, pair.changes, True
        )
        for label, pair in section.pairs.items()
    ]


def make_arms(recipe: Recipe, section: Comparison) -> tuple[list[Arm], list[str]]:
    """The arms of all combinations, controls first, and notes on keys that did not apply."""
    arms: dict[str, Arm] = {}
    used: set[str] = set()
    points = arguments.grid_points(section.grid)
    check_grid_keys(section.grid)
    several_teachers = len(section.teachers) > 1
    for point in points:
        used |= {value.key for value in point if not is_method_key(value)}
        for networks in make_network_pairs(recipe.student, section):
            control = make_control_arm(recipe, point, networks)
            arms.setdefault(control.label, control)
            for method in section.methods:
                values = tuple(v for v in point if applies_to(v, networks.methods[method]))
                used |= {value.key for value in values}
                suffix = [f"from {networks.label}"] if several_teachers else []
                suffix = networks.suffix or suffix
                changes = tuple(map(GridValue.parse, section.changes.get(method, ())))
                own = control
                if changes:
                    own = make_control_arm(recipe, (*point, *changes), networks)
                    arms.setdefault(own.label, own)
                arm = make_taught_arm(recipe, networks, method, values, own.label, suffix, changes)
                arms.setdefault(arm.label, arm)
    for key in section.grid.keys() - used:
        raise UserError(f"--grid: no method has an option {key.partition('.')[2]!r}")
    return sorted(arms.values(), key=lambda arm: not arm.is_control), grid_notes(points, section)


GRID_SECTIONS = ("method", "student", "train")


def check_grid_keys(keys: Iterable[str]) -> None:
    """Refuse keys of sections that must be the same for all arms."""
    for key in keys:
        section = key.partition(".")[0]
        if section not in GRID_SECTIONS:
            hint = did_you_mean(section, GRID_SECTIONS)
            hint = "; use --teachers" if section == "teacher" else hint
            raise UserError(
                f"--grid: {key} cannot vary within a study, only keys of "
                f"{', '.join(GRID_SECTIONS)} can{hint}"
            )


def grid_notes(points: Sequence[tuple[GridValue, ...]], section: Comparison) -> list[str]:
    """A note for each method without an option that the grid varies."""
    values = {value.key: value for value in points[0]}
    return [
        f"{method} has no option {key.partition('.')[2]}, so it runs once"
        for key, value in values.items()
        for method, specs in section.methods.items()
        if not applies_to(value, specs)
    ]


def is_method_key(value: GridValue) -> bool:
    """Whether a key of the grid belongs to the method, which a control does not have."""
    return value.key.startswith("method.")


def applies_to(value: GridValue, specs: Sequence[Any]) -> bool:
    """Whether a key of the grid applies to a method."""
    return not is_method_key(value) or has_option(tuple(specs), value.key)


def make_control_arm(recipe: Recipe, point: Sequence[GridValue], networks: NetworkPair) -> Arm:
    """The student without a teacher, at one point of the grid."""
    values = [value for value in point if not is_method_key(value)]
    label = " ".join([CONTROL, *(value.label for value in values), *networks.suffix])
    untaught = replace(
        recipe, student=networks.student, method=(Control(),), teacher=None, study=None
    )
    overrides = [*networks.changes, *(value.override for value in values)]
    resolved = load.replace_sections(untaught, {}, overrides)
    return Arm(label, CONTROL, "", label, resolved, networks.label if networks.is_pair else "")


def make_taught_arm(
    recipe: Recipe,
    networks: NetworkPair,
    method: str,
    values: Sequence[GridValue],
    control: str,
    suffix: Sequence[str],
    changes: Sequence[GridValue],
) -> Arm:
    """One method for a pair of networks, at one point of the grid."""
    label = " ".join([method, *(value.label for value in values), *suffix])
    taught = replace(recipe, student=networks.student, teacher=networks.teacher, study=None)
    sections = {"method": [load.method_to_dict(one) for one in networks.methods[method]]}
    overrides = [*networks.changes, *(value.override for value in (*values, *changes))]
    resolved = with_shared_store(load.replace_sections(taught, sections, overrides))
    pair = networks.label if networks.is_pair else ""
    return Arm(label, method, networks.label, control, resolved, pair)


def with_shared_store(recipe: Recipe) -> Recipe:
    """The recipe with the teacher's outputs in a store that all jobs read, where one is possible.

    The store has full precision unless the recipe asks for less, so that it changes no result.
    Methods that need more than the logits of the teacher run the teacher instead.
    """
    teacher = recipe.teacher
    assert teacher is not None
    live = teacher.ensemble == "separate" or not all(method.storable for method in recipe.method)
    finite = data_is_finite(recipe.data)
    store = (
        None
        if live or not finite or not recipe.task.storable
        else teacher.store or StoreSpec(precision="full")
    )
    return replace(recipe, teacher=replace(teacher, store=store, remember=False))
