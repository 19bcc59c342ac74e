"""The page of two runs."""

from __future__ import annotations

from pathlib import Path

from stillhouse.build.session import Session
from stillhouse.errors import UserError
from stillhouse.explain.phrases import metric_name
from stillhouse.explain.predictions import DEFAULT_OPTIONS, ExplainOptions
from stillhouse.explain.roles import TEACHER
from stillhouse.explain.section import Section
from stillhouse.recipes import load
from stillhouse.recipes.schema import Recipe
from stillhouse.report import draft
from stillhouse.report.page import Page, ScoreBar
from stillhouse.report.trainings import Training, training_tables
from stillhouse.runs.costs import network_specs, student_spec
from stillhouse.runs.diagnosis import Student, diagnose
from stillhouse.runs.execute import Result
from stillhouse.runs.training import STUDENT
from stillhouse.study.index import read_run, summarize_run


def compare_page(first: Path, second: Path, options: ExplainOptions = DEFAULT_OPTIONS) -> Page:
    """The second run compared with the first, with the teacher of the second."""
    if first.resolve() == second.resolve():
        raise UserError(f"{first} cannot be compared with itself; give two runs")
    one, other = read_run(first), read_run(second)
    check_same_data(one, other, first, second)
    names = run_names(first, second)
    (recipe, result), headline, split = other, other[1].headline, other[1].split
    students = [
        Student(name, read[0], folder / STUDENT)
        for name, read, folder in zip(names, (one, other), (first, second), strict=True)
    ]
    parts = draft.Draft(recipe)
    specs = {student.name: student_spec(student.recipe) for student in students}
    costs = parts.costs(network_specs(recipe, specs))

    def diagnoses(session: Session | None) -> tuple[Section, ...]:
        return () if session is None else diagnose(recipe, students, session, options, names[0])

    sections = parts.sections(diagnoses)
    trainings = {
        name: Training(read[0], folder, folder)
        for name, read, folder in zip(names, (one, other), (first, second), strict=True)
    }
    curves = parts.curves(trainings, headline)
    scores = {names[0]: one[1].student, names[1]: result.student}
    if result.teacher is not None:
        scores = {"teacher": result.teacher, **scores}
    return Page(
        title=f"{names[0]} and {names[1]}",
        answers=(
            difference(names, one[1], result),
            *(summarize_run(*read) for read in (one, other)),
        ),
        headline=headline,
        split=split,
        bars=tuple(ScoreBar(who, score[split][headline]) for who, score in scores.items()),
        costs=costs.costs,
        machine=costs.machine,
        notes=(
            *draft.split_notes(recipe, split),
            *parts.notes,
            *differing_sections(one[0], recipe),
        ),
        curves=curves,
        tables=(draft.score_table(scores, split), *training_tables(trainings)),
        sections=sections,
        recipe=load.to_yaml(recipe),
        environment=draft.environment_text(second),
        again=(f"stillhouse report --compare {first} {second}",),
    )


def run_names(first: Path, second: Path) -> tuple[str, str]:
    """The names of the folders; their full paths where the names are equal."""
    short = first.resolve().name, second.resolve().name
    clear = short[0] != short[1] and TEACHER not in short
    return short if clear else (str(first), str(second))


def check_same_data(
    one: tuple[Recipe, Result], other: tuple[Recipe, Result], first: Path, second: Path
) -> None:
    """Refuse two runs on different data, or with scores of different splits."""
    if one[1].split != other[1].split:
        raise UserError(
            f"the scores of {first} are of {one[1].split}, and those of {second} of "
            f"{other[1].split}, so that they cannot be compared; run the recipe of one again"
        )
    if load.to_dict(one[0])["data"] != load.to_dict(other[0])["data"]:
        raise UserError(
            f"{first} and {second} were run on different data, so that their scores cannot be "
            "compared; give two runs whose recipes have the same data"
        )


def difference(names: tuple[str, str], one: Result, other: Result) -> str:
    """The scores of both runs and their difference."""
    a, b = (result.student[other.split][other.headline] for result in (one, other))
    seeds = {one.student["seed"], other.student["seed"]}
    pair = "the same seed" if len(seeds) == 1 else "different seeds"
    return (
        f"{metric_name(other.headline)} on {other.split}: {names[1]} {b:.1f}, {names[0]} {a:.1f}, "
        f"difference {b - a:+.1f} (one run each with {pair}, no confidence interval)"
    )


def differing_sections(one: Recipe, other: Recipe) -> tuple[str, ...]:
    """The keys in which two recipes differ."""
    first, second = load.to_dict(one), load.to_dict(other)
    shown = [key for key in first if first[key] != second[key] and key not in ("title", "study")]
    if not shown:
        return ("The two recipes are equal.",)
    return (f"The two recipes differ in {', '.join(shown)}.",)
