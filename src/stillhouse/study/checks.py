"""The checks of the arms of a study or a search, before any job starts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from stillhouse.build.session import Session
from stillhouse.errors import UserError
from stillhouse.models import cost
from stillhouse.recipes.schema import Recipe, TeacherSpec
from stillhouse.runs.checks import TrainingChecks, check_space
from stillhouse.runs.teacher import member_recipe, member_weights
from stillhouse.runs.training import RESULT
from stillhouse.study.plan import Arm, StudyPlan

# what a network or a method may raise for options that do not fit
ERRORS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
NAMED = 3  # other labels that a message names


def check_arms(plan: StudyPlan, session: Session, folder: Path) -> None:
    """Check each arm of a study that is not finished, its teachers, and the disk.

    Raises UserError with the first problem, and the names of the arms that have one.
    """
    arms = [arm for arm in plan.arms if not is_finished(plan, arm, folder)]
    check_trainings(plan, {arm.label: arm.recipe for arm in arms}, session, folder)


def is_finished(plan: StudyPlan, arm: Arm, folder: Path) -> bool:
    """Whether all jobs of an arm have a result."""
    return all((plan.job(arm, seed, folder).folder / RESULT).is_file() for seed in plan.seeds)


def check_trainings(
    plan: StudyPlan, recipes: Mapping[str, Recipe], session: Session, folder: Path
) -> None:
    """Check the recipes of arms by label, those that train their teachers first, and the disk."""
    checks = TrainingChecks(plan.recipe, session)
    steps = {}
    if recipes:
        for label, teacher in plan.teachers.items():
            steps[f"teacher {label}"] = partial(check_untrained, checks, teacher)
    for label, recipe in recipes.items():
        steps[f"arm {label}"] = partial(check_student, checks, recipe)
    problems, students = {}, 0
    for label, check in steps.items():
        try:
            students += check()
        except UserError as error:
            problems[label] = str(error)
        except ERRORS as error:
            reason = (str(error).splitlines() or [""])[0]
            problems[label] = f"{type(error).__name__}: {reason}; correct it, or leave it out"
    if problems:
        raise UserError(describe_problems(problems))
    check_space(students * len(plan.seeds), folder)


def check_student(checks: TrainingChecks, recipe: Recipe) -> int:
    """Check the training of one arm; the bytes of its student."""
    return cost.size(checks.check_training(recipe).student)


def check_untrained(checks: TrainingChecks, teacher: TeacherSpec) -> int:
    """Check the trainings of the members of a teacher that have no weights; their bytes."""
    return sum(
        check_student(checks, member_recipe(checks.recipe, member))
        for member in teacher.networks
        if member_weights(checks.recipe, member, checks.session) is None
    )


def describe_problems(problems: Mapping[str, str]) -> str:
    """The first problem, and the labels of the others."""
    (label, sentence), *others = problems.items()
    if not others:
        return f"{label}: {sentence}"
    names = ", ".join(name for name, _ in others[:NAMED])
    names += f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
    return f"{label}: {sentence} (also with a problem: {names})"
