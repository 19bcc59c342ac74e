"""Two runs beside each other."""

from __future__ import annotations

from pathlib import Path

from stillhouse.errors import UserError
from stillhouse.explain.predictions import AS_EVER, TEACHER, Look
from stillhouse.recipes import load
from stillhouse.recipes.schema import Recipe
from stillhouse.report import draft as parts
from stillhouse.report.page import Bar, Page
from stillhouse.runs.costs import named_networks, shipped
from stillhouse.runs.diagnosis import Student, diagnose
from stillhouse.runs.execute import Result
from stillhouse.runs.training import STUDENT
from stillhouse.study.shelf import read_run, run_answer


def compare_page(first: Path, second: Path, look: Look = AS_EVER) -> Page:
    """The second run beside the first, and the teacher of the second."""
    if first.resolve() == second.resolve():
        raise UserError(f"{first} cannot be compared with itself; give two runs")
    one, other = read_run(first), read_run(second)
    refuse_strangers(one[0], other[0], first, second)
    names = named(first, second)
    (recipe, result), headline = other, other[1].headline
    students = [
        Student(name, read[0], folder / STUDENT)
        for name, read, folder in zip(names, (one, other), (first, second), strict=True)
    ]
    draft = parts.Draft(recipe)
    priced = draft.priced(named_networks(recipe, {s.name: shipped(s.recipe) for s in students}))
    sections = draft.sections(lambda shop: diagnose(recipe, students, shop, look, names[0]))
    curves = draft.curves(dict(zip(names, (first, second), strict=True)), headline)
    scores = {names[0]: one[1].student, names[1]: result.student}
    if result.teacher is not None:
        scores = {"teacher": result.teacher, **scores}
    return Page(
        title=f"{names[0]} and {names[1]}",
        answers=(difference(names, one[1], result), *(run_answer(*read) for read in (one, other))),
        headline=headline,
        bars=tuple(Bar(who, score["test"][headline]) for who, score in scores.items()),
        costs=priced.costs,
        machine=priced.machine,
        notes=(*draft.notes, *differing(one[0], recipe)),
        curves=curves,
        tables=(parts.score_table(scores),),
        sections=sections,
        recipe=load.text(recipe),
        environment=parts.environment_text(second),
        again=(f"stillhouse report --compare {first} {second}",),
    )


def named(first: Path, second: Path) -> tuple[str, str]:
    """What the two are called: by their folders, in full where those are called alike."""
    short = first.resolve().name, second.resolve().name
    clear = short[0] != short[1] and TEACHER not in short
    return short if clear else (str(first), str(second))


def refuse_strangers(one: Recipe, other: Recipe, first: Path, second: Path) -> None:
    """Only runs on the same data can be compared."""
    if load.plain(one)["data"] != load.plain(other)["data"]:
        raise UserError(
            f"{first} and {second} were run on different data, and their scores compare nothing; "
            "give two runs whose recipes agree under data"
        )


def difference(names: tuple[str, str], one: Result, other: Result) -> str:
    """How much better the second is."""
    a, b = (result.student["test"][other.headline] for result in (one, other))
    seeds = {one.student["seed"], other.student["seed"]}
    pair = "the same seed" if len(seeds) == 1 else "different seeds"
    return (
        f"{names[1]} {other.headline} {b:.1f}, {names[0]} {a:.1f}: {b - a:+.1f} "
        f"(one run each, {pair}: no interval can be given)"
    )


def differing(one: Recipe, other: Recipe) -> tuple[str, ...]:
    """In which sections the two recipes differ."""
    first, second = load.plain(one), load.plain(other)
    shown = [key for key in first if first[key] != second[key] and key not in ("title", "study")]
    if not shown:
        return ("The two recipes are the same",)
    return (f"The two recipes differ in {', '.join(shown)}",)
