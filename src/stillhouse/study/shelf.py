"""Runs and studies on the disk: finding them, reading them, and what to say of those that fail."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stillhouse.engine.folder import MARK
from stillhouse.errors import UserError
from stillhouse.recipes import load
from stillhouse.recipes.schema import Recipe
from stillhouse.runs.execute import Result
from stillhouse.runs.training import RESULT_FORMAT, RESULT, TEACHER, Score
from stillhouse.study.findings import STUDY, Study, answer, read_study
from stillhouse.study.sweep import CHOSEN

DEEP = 4  # folders below the one that is looked into


@dataclass(frozen=True)
class Item:
    """One folder of a shelf, and what came of it."""

    folder: Path
    kind: str  # run, study, sweep, or "" for what cannot be read
    said: str


def is_study(folder: Path) -> bool:
    """Whether a folder is a study's."""
    return (folder / STUDY).is_file()


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's."""
    return (folder / load.RECIPE).is_file() or (folder / MARK).is_file()


def browse(folder: Path) -> Iterator[Item]:
    """Every run and study below a folder, and a sentence for what cannot be read."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; runs are kept in ./runs unless --out says")
    yield from (look(folder),) if is_study(folder) or is_run(folder) else below(folder, DEEP)


def below(folder: Path, depth: int) -> Iterator[Item]:
    """What lies in the folders of a folder."""
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        if is_study(inner) or is_run(inner) or (inner / CHOSEN).is_file():
            yield look(inner)
        elif any(path.is_dir() for path in inner.iterdir()) and depth > 1:
            yield from below(inner, depth - 1)
        elif any(inner.iterdir()):
            yield Item(inner, "", f"{inner} is no run: it has no {load.RECIPE}")


def look(folder: Path) -> Item:
    """One folder's answer, or the sentence of why there is none."""
    try:
        if is_study(folder):
            return Item(folder, "study", study_answer(read_study(folder)))
        if (folder / CHOSEN).is_file():
            return Item(folder, "sweep", f"chosen options are in {folder / CHOSEN}")
        recipe, result = read_run(folder)
        return Item(folder, "run", run_answer(recipe, result))
    except UserError as error:
        return Item(folder, "", str(error))


def study_answer(study: Study) -> str:
    """What the best method of a study reached, and of how many it is the best."""
    best, count = study.best(), len(study.taught)
    if best is None:
        return "nothing is finished yet"
    return answer(study, best) + (f" (best of {count})" if count > 1 else "")


def read_run(folder: Path) -> tuple[Recipe, Result]:
    """The recipe of a run and what came of it."""
    if not (folder / load.RECIPE).is_file():
        raise UserError(f"{folder} is no run: it has no {load.RECIPE}")
    recipe = load.load(folder / load.RECIPE)
    student = read_score(folder / RESULT)
    if student is None:
        raise UserError(f"{folder} is not finished; go on with `stillhouse run {folder} --resume`")
    teacher = read_score(folder / TEACHER)
    control = read_score(folder / "control" / RESULT)
    return recipe, Result(folder, student["headline"], student, teacher, control)


def read_score(path: Path) -> Score | None:
    """What one network reached; None where there is no such file."""
    if not path.is_file():
        return None
    try:
        score = json.loads(path.read_text(encoding="utf-8"))
        if path.name == RESULT and score.get("format") != RESULT_FORMAT:
            raise UserError(
                f"{path} was written by another version of stillhouse; read it with that version, "
                "or run its recipe again"
            )
        headline = score.get("headline", "")
        numbers = [score["test"][headline]] if headline else [*score["test"].values()]
        if not numbers or not all(map(math.isfinite, numbers)):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged; run its recipe again with --overwrite") from error
    assert isinstance(score, dict)
    return score


def run_answer(recipe: Recipe, result: Result) -> str:
    """Student, control and teacher of one run: one seed, and so no interval."""
    student = result.student["test"][result.headline]
    said = [f"student {result.headline} {student:.1f}"]
    if result.control is not None:
        said.append(f"control {result.control['test'][result.headline]:.1f}")
    if result.teacher is not None:
        said.append(f"teacher {result.teacher['test'][result.headline]:.1f}")
    name = " and ".join(method.name for method in recipe.method)
    line = f"{name.upper() if name.isalpha() else name}: {', '.join(said)}"
    if result.control is None:
        return line + ("" if not recipe.distils else ": no control, so no answer")
    gain = student - result.control["test"][result.headline]
    return f"{line}: {gain:+.1f} (one seed: no interval can be given)"
