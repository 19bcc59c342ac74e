"""The index of runs and studies on disk, with a one-line result for each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stillhouse.engine.folder import LOCK, MARK
from stillhouse.errors import UserError
from stillhouse.explain.guard import error_text, log_traceback
from stillhouse.files import PARTIAL, read_json
from stillhouse.recipes import load
from stillhouse.recipes.schema import Recipe
from stillhouse.runs.execute import Result
from stillhouse.runs.scores import Score, parse_result, parse_score
from stillhouse.runs.training import RESULT, RESULT_FORMAT, TEACHER
from stillhouse.study.results import STUDY_FILE, Study, display_label, read_study, summarize_arm
from stillhouse.study.scores import run_scores, study_scores
from stillhouse.study.sweep import CHOSEN_FILE

MAX_DEPTH = 4  # levels of folders that are searched
UNSTARTED = "unstarted"  # the kind of a run that failed before it trained anything


@dataclass(frozen=True)
class RunEntry:
    """One folder of the index."""

    folder: Path
    kind: str  # run, study, sweep, UNSTARTED, or "" if it cannot be read
    summary: str  # its result in one line, or why there is none
    scores: Mapping[str, Any] = field(default_factory=dict)  # see `study.scores`


def is_study(folder: Path) -> bool:
    """Whether a folder holds a study."""
    return (folder / STUDY_FILE).is_file()


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run."""
    return (folder / load.RECIPE_FILE).is_file() or (folder / MARK).is_file()


def is_unstarted(folder: Path) -> bool:
    """Whether a folder was claimed for a run that failed before it trained anything."""
    names = {path.name for path in folder.iterdir() if not path.name.endswith(PARTIAL)}
    return MARK in names and names <= {LOCK, MARK}


def list_runs(folder: Path) -> Iterator[RunEntry]:
    """Every run and study in a folder, sorted by path.

    Raises:
        UserError: if there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {folder}; runs are saved in ./runs unless --out is set"
        )
    if is_study(folder) or is_run(folder):
        yield read_entry(folder)
    else:
        yield from search_folder(folder, MAX_DEPTH)


def search_folder(folder: Path, depth: int) -> Iterator[RunEntry]:
    """The runs and studies in the subfolders of a folder, down to `depth` levels.

    A link to a folder above is not followed.
    """
    here = folder.resolve()
    folders = [path for path in folder.iterdir() if path.is_dir()]
    for inner in sorted(path for path in folders if not here.is_relative_to(path.resolve())):
        if is_study(inner) or is_run(inner) or (inner / CHOSEN_FILE).is_file():
            yield read_entry(inner)
            continue
        try:
            contents = [path.is_dir() for path in inner.iterdir()]
        except OSError as error:
            yield RunEntry(inner, "", f"{inner} cannot be read: {error.strerror}")
            continue
        if any(contents) and depth > 1:
            yield from search_folder(inner, depth - 1)
        elif contents:
            yield RunEntry(inner, "", not_a_run(inner))


def read_entry(folder: Path) -> RunEntry:
    """The entry of one folder; an error becomes its summary."""
    try:
        if is_study(folder):
            study = read_study(folder)
            return RunEntry(folder, "study", summarize_study(study), study_scores(study))
        if (folder / CHOSEN_FILE).is_file():
            return RunEntry(folder, "sweep", f"chosen options are in {folder / CHOSEN_FILE}")
        if is_unstarted(folder):
            return RunEntry(folder, UNSTARTED, "it failed before it trained anything")
        recipe, result = read_run(folder)
        return RunEntry(folder, "run", summarize_run(recipe, result), run_scores(result))
    except Exception as error:  # of a folder that others wrote, which must not hide the rest
        log_traceback(str(folder), error)
        return RunEntry(folder, "", error_text(error))


def not_a_run(folder: Path) -> str:
    """The error message for a folder that holds no run."""
    return f"{folder} is not a run folder: it has no {load.RECIPE_FILE}"


def summarize_study(study: Study) -> str:
    """The result of the best arm, and of how many arms it is the best."""
    best, count = study.best(), len(study.taught)
    if best is None:
        return "no finished run yet"
    return summarize_arm(study, best) + (f" (best of {count})" if count > 1 else "")


def read_run(folder: Path) -> tuple[Recipe, Result]:
    """The recipe and the result of a finished run.

    Raises:
        UserError: if the folder holds no run, or the run is unfinished or damaged.
    """
    if not (folder / load.RECIPE_FILE).is_file():
        raise UserError(not_a_run(folder))
    recipe = load.load(folder)
    student = read_score(folder / RESULT, folder)
    if student is None:
        raise UserError(
            f"{folder} is not finished; continue it with `stillhouse run {folder} --resume`"
        )
    headline = str(student["headline"])
    split = str(student["split"])
    teacher = read_score(folder / TEACHER, folder, headline, split)
    control = read_score(folder / "control" / RESULT, folder, headline, split)
    return recipe, Result(folder, headline, student, teacher, control)


def read_score(path: Path, run: Path, headline: str = "", split: str = "") -> Score | None:
    """The score in a file of a run; None if there is no such file.

    `headline` is the metric that it must have on `split`, by default those that it names.
    """
    if not path.is_file():
        return None

    def parse(content: dict[str, Any]) -> Score:
        if path.name == RESULT and content.get("format") != RESULT_FORMAT:
            raise UserError(
                f"{path} was written by another version of stillhouse; read it with that version, "
                "or run its recipe again"
            )
        is_result = path.name == RESULT
        score = parse_result(content, path.parent) if is_result else parse_score(content)
        if not math.isfinite(score[split or score["split"]][headline or score["headline"]]):
            raise ValueError("the headline is not a finite number")
        return score

    return read_json(path, parse, "run its recipe again with --overwrite", inside=run)


def summarize_run(recipe: Recipe, result: Result) -> str:
    """Student, control and teacher of a run in one line; one seed has no interval."""
    split, headline = result.split, result.headline
    student = result.student[split][headline]
    parts = [f"student {headline} {student:.1f}"]
    if result.control is not None:
        parts.append(f"control {result.control[split][headline]:.1f}")
    if result.teacher is not None:
        parts.append(f"teacher {result.teacher[split][headline]:.1f}")
    label = display_label(" and ".join(method.name for method in recipe.method))
    line = f"{label}: {', '.join(parts)} on {split}"
    if result.control is None:
        return f"{line}: no control to compare with" if recipe.distils else line
    gain = student - result.control[split][headline]
    return f"{line}: {gain:+.1f} (one seed: no interval can be given)"
