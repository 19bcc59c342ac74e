"""The page of one run."""

from __future__ import annotations

from pathlib import Path

from stillhouse.build.workshop import Workshop
from stillhouse.explain.predictions import AS_EVER, Look
from stillhouse.explain.section import Section
from stillhouse.recipes import load
from stillhouse.recipes.schema import Recipe
from stillhouse.report import draft as parts
from stillhouse.report.page import Bar, Page
from stillhouse.report.render import write_page
from stillhouse.runs.costs import named_networks
from stillhouse.runs.diagnosis import sections_of
from stillhouse.runs.execute import Result
from stillhouse.runs.training import Score
from stillhouse.study.shelf import read_run, run_answer


def write_run(folder: Path, *, explain: bool = True) -> Path:
    """The page of a run, in its folder; diagnoses are made where there are none."""
    return write_page(run_page(folder, explain=explain), folder / parts.PAGE)


def run_page(folder: Path, look: Look = AS_EVER, *, explain: bool = True) -> Page:
    """What is to be said of a run."""
    recipe, result = read_run(folder)
    draft = parts.Draft(recipe)
    priced = draft.priced(named_networks(recipe), folder)

    def diagnosed(shop: Workshop) -> tuple[Section, ...]:
        return sections_of(folder, recipe, shop, look)

    sections = draft.sections(diagnosed) if explain else ()
    curves = draft.curves(courses(folder), result.headline)
    return Page(
        title=recipe.title or recipe.student.name,
        answers=(run_answer(recipe, result),),
        headline=result.headline,
        bars=bars(recipe, result),
        costs=priced.costs,
        machine=priced.machine,
        notes=tuple(draft.notes),
        curves=curves,
        tables=(parts.score_table(scores(result)),),
        sections=sections,
        recipe=load.text(recipe),
        environment=parts.environment_text(folder),
        again=again(recipe, folder),
    )


def scores(result: Result) -> dict[str, Score]:
    """Who was measured, in the order of the page."""
    found = {"teacher": result.teacher, "control": result.control, "student": result.student}
    return {who: score for who, score in found.items() if score is not None}


def bars(recipe: Recipe, result: Result) -> tuple[Bar, ...]:
    """Teacher, control and student, with what the paper says of each."""
    return tuple(
        Bar(who, score["test"][result.headline], paper=recipe.paper.get(who))
        for who, score in scores(result).items()
    )


def courses(folder: Path) -> dict[str, Path]:
    """Whose records there are."""
    found = {"control": folder / "control", "student": folder}
    return {who: path for who, path in found.items() if (path / "metrics.jsonl").is_file()}


def again(recipe: Recipe, folder: Path) -> tuple[str, ...]:
    """How to do it again, and how to be surer."""
    methods = "+".join(method.name for method in recipe.method)
    lines = ["# save the recipe above as recipe.yaml", "stillhouse run recipe.yaml"]
    if recipe.distils:
        lines.append(f"stillhouse study recipe.yaml --methods {methods} --seeds 5")
    return (*lines, f"stillhouse evaluate {folder}")
