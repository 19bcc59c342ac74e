"""One page that says what came of a run: the answer, three bars, the table, how to do it again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stillhouse.engine.environment import describe
from stillhouse.files import write_text
from stillhouse.recipes import load
from stillhouse.recipes.execute import Result, Score
from stillhouse.recipes.schema import Recipe
from stillhouse.study.demo import CONTROL, Study
from stillhouse.study.statistics import spread

PAGE = "report.html"


class Bar(NamedTuple):
    """One who was measured."""

    who: str
    value: float
    spread: float
    parameters: int
    name: str


def write_page(result: Result, recipe: Recipe) -> Path:
    """The page of one run, in its folder."""
    found = {"teacher": result.teacher, "control": result.control, "student": result.student}
    bars = [bar(who, [score], result.headline) for who, score in found.items() if score is not None]
    student = result.student["test"][result.headline]
    answer = f"student {result.headline} {student:.2f}"
    if result.control is not None:
        gain = student - result.control["test"][result.headline]
        answer += f", {gain:+.2f} over the control. One seed: no interval can be given"
    return write(result.folder, recipe, result.headline, [answer], bars)


def write_study(study: Study, folder: Path) -> Path:
    """The page of the demonstration, in its folder."""
    bars = [bar("teacher", [study.teacher], study.headline)]
    bars += [
        bar("control" if name == CONTROL else name, scores, study.headline)
        for name, scores in study.scores.items()
    ]
    return write(folder, study.recipe, study.headline, study.answers(), bars)


def bar(who: str, scores: Sequence[Score], headline: str) -> Bar:
    """The mean and spread of who was measured once or several times."""
    values = [score["test"][headline] for score in scores]
    first = scores[0]
    mean = sum(values) / len(values)
    return Bar(who, mean, spread(values), first["parameters"], first["name"])


def write(
    folder: Path, recipe: Recipe, headline: str, answers: Sequence[str], bars: Sequence[Bar]
) -> Path:
    """Render the page and put it in place."""
    from jinja2 import Environment, PackageLoader

    page = Environment(loader=PackageLoader("stillhouse.report"), autoescape=True)
    values: dict[str, Any] = {
        "title": recipe.title or recipe.student.name,
        "headline": headline,
        "answers": answers,
        "bars": bars,
        "recipe": load.text(recipe),
        "environment": json.dumps(describe(), indent=2, ensure_ascii=False),
    }
    write_text(folder / PAGE, page.get_template("page.html").render(values))
    return folder / PAGE
