"""The page of one run."""

from __future__ import annotations

from pathlib import Path

from stillhouse.build.session import Session
from stillhouse.explain.predictions import DEFAULT_OPTIONS, ExplainOptions
from stillhouse.explain.section import Section
from stillhouse.recipes import load
from stillhouse.recipes.schema import Recipe
from stillhouse.report import draft
from stillhouse.report.page import Page, ScoreBar
from stillhouse.report.render import write_page
from stillhouse.report.trainings import run_trainings, training_tables
from stillhouse.runs.costs import network_specs
from stillhouse.runs.diagnosis import sections_of_run
from stillhouse.runs.execute import Result
from stillhouse.runs.scores import Score
from stillhouse.study.index import read_run, summarize_run


def write_run(folder: Path, *, explain: bool = True) -> Path:
    """Write the page of a run into its folder; diagnoses are computed if there are none."""
    return write_page(run_page(folder, explain=explain), folder / draft.PAGE_FILE)


def run_page(
    folder: Path, options: ExplainOptions = DEFAULT_OPTIONS, *, explain: bool = True
) -> Page:
    """The content of the page of a run."""
    recipe, result = read_run(folder)
    parts = draft.Draft(recipe)
    costs = parts.costs(network_specs(recipe), folder)

    def diagnoses(session: Session | None) -> tuple[Section, ...]:
        return sections_of_run(folder, recipe, session, options)

    sections = parts.sections(diagnoses) if explain else ()
    trainings = run_trainings(folder, recipe)
    curves = parts.curves(trainings, result.headline)
    return Page(
        title=recipe.title or recipe.student.name,
        answers=(summarize_run(recipe, result),),
        headline=result.headline,
        split=result.split,
        bars=score_bars(recipe, result),
        costs=costs.costs,
        machine=costs.machine,
        notes=(
            *draft.split_notes(recipe, result.split),
            *result.student.get("notes", ()),
            *result.student.get("warnings", ()),
            *parts.notes,
        ),
        curves=curves,
        tables=(draft.score_table(scores(result), result.split), *training_tables(trainings)),
        sections=sections,
        recipe=load.to_yaml(recipe),
        environment=draft.environment_text(folder),
        usage=draft.student_usage(folder),
        again=commands(recipe, folder),
        files=parts.predictions(folder, recipe) if explain else (),
    )


def scores(result: Result) -> dict[str, Score]:
    """The scores by network, in the order of the page."""
    by_name = {"teacher": result.teacher, "control": result.control, "student": result.student}
    return {who: score for who, score in by_name.items() if score is not None}


def score_bars(recipe: Recipe, result: Result) -> tuple[ScoreBar, ...]:
    """Teacher, control and student, with the values in the paper."""
    return tuple(
        ScoreBar(who, score[result.split][result.headline], paper=recipe.paper.get(who))
        for who, score in scores(result).items()
    )


def commands(recipe: Recipe, folder: Path) -> tuple[str, ...]:
    """Commands that run the recipe again, over several seeds, and evaluate the student."""
    methods = "+".join(method.name for method in recipe.method)
    lines = ["# save the recipe above as recipe.yaml", "stillhouse run recipe.yaml"]
    if recipe.distils:
        lines.append(f"stillhouse study recipe.yaml --methods {methods} --seeds 5")
    return (*lines, f"stillhouse evaluate {folder}")
