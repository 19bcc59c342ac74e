"""Each tick of the table of methods and tasks: the method makes a step on embedded data."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from stillhouse.build.session import Session
from stillhouse.methods.catalogue import published
from stillhouse.methods.support import TASKS, options_for, support_table, tasks_of
from stillhouse.recipes import load
from stillhouse.runs.checks import TrainingChecks, control_recipe
from stillhouse.runs.doctor import check_recipe
from stillhouse.tasks import catalogue

ROOT = Path(__file__).parents[2]
FEW = ("data.train.count=16", "data.val.count=8", "data.test.count=8", "data.batch=4")
RECIPES = {
    "classification": ("digits/numbers", "data.batch=8", "teacher.remember=false"),
    "multilabel": ("digits/labels", "data.batch=16", "student.head=null", "teacher.head=null"),
    "dense": ("digits/objects", *FEW),
    "two_stage": ("digits/faster_rcnn", *FEW),
    "semantic": ("digits/semantic", *FEW),
    "instance": ("digits/solov2", *FEW),
}
LABELWISE = {"cd", "id", "l2d"}  # they need the head that others are tried without
OPTIONS = {"crosskd": {"after": 1}}  # towers here have one layer
WIDE = ("student.options.neck.width=64", "student.options.head.width=64")  # as the teacher's
TICKS = [(name, task) for name in published() for task in TASKS if task in tasks_of(name)]


@pytest.fixture(scope="module")
def checks_of() -> Callable[[str], TrainingChecks]:
    """The checks of a task, whose data and teachers are opened once."""

    @cache
    def make(task: str) -> TrainingChecks:
        recipe = load.load(RECIPES[task][0], [*RECIPES[task][1:], "engine.device=cpu"])
        return TrainingChecks(recipe, Session.open(recipe, quiet=True))

    return make


@pytest.fixture(scope="module")
def labels_of(checks_of: Callable[[str], TrainingChecks]) -> Callable[..., set[str]]:
    """The terms of a student without a teacher."""

    @cache
    def found(task: str, *words: str) -> set[str]:
        base = load.load(RECIPES[task][0], [*words, "engine.device=cpu"])
        return set(checks_of(task).check_training(control_recipe(base)).terms)

    return found


@pytest.mark.parametrize(("name", "task"), TICKS)
def test_a_method_makes_a_step_on_each_task_that_it_is_listed_for(
    name: str,
    task: str,
    checks_of: Callable[[str], TrainingChecks],
    labels_of: Callable[..., set[str]],
) -> None:
    recipe, *words = RECIPES[task]
    if name in LABELWISE:
        words = [word for word in words if not word.endswith("head=null")]
    if name == "crosskd":
        words += WIDE
    base = load.load(recipe, [*words, "engine.device=cpu"])
    options = options_for(name, task) | OPTIONS.get(name, {})
    distilling = load.replace_sections(base, {"method": options})
    terms = checks_of(task).check_training(distilling).terms
    assert terms.keys() - labels_of(task, *words)  # those of the method
    assert all(math.isfinite(value) for value, _ in terms.values())


@pytest.mark.parametrize(
    ("name", "task"),
    [("dkd", "multilabel"), ("l2d", "classification"), ("bckd", "semantic"), ("ifvd", "dense")],
)
def test_a_method_that_is_not_listed_is_refused(name: str, task: str) -> None:
    assert task not in tasks_of(name)
    recipe, *words = RECIPES[task]
    options = options_for(name, task)
    checks = list(
        check_recipe(load.replace_sections(load.load(recipe, words), {"method": options}))
    )
    failed = [check.message for check in checks if check.passed is False]
    assert failed and "method" in failed[0]


def test_every_task_has_a_column() -> None:
    assert set(catalogue.TASKS) - {"detection"} <= set(TASKS)
    assert set(RECIPES) == set(TASKS)


def test_the_readme_has_the_table() -> None:
    table = support_table()
    assert table in (ROOT / "README.md").read_text("utf-8")
    rows = table.splitlines()
    assert len(rows) == 2 + len(published()) and len({row.count("|") for row in rows}) == 1
    assert sum(row.count("✓") for row in rows) == len(TICKS)
