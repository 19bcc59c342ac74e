"""One training in its folder: claimed, begun or taken up, measured, and written down."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from stillhouse.build.contract import BESIDE
from stillhouse.build.networks import (
    TeacherNetwork,
    contract_of,
)
from stillhouse.build.run import make_run
from stillhouse.build.store import Say, silent
from stillhouse.build.workshop import Workshop
from stillhouse.data.random import derive_seed
from stillhouse.distributed import on_first_rank, rank
from stillhouse.engine import environment, state
from stillhouse.engine.evaluate import evaluate
from stillhouse.engine.folder import LOCK, MARK, claim_folder
from stillhouse.engine.run import Run
from stillhouse.engine.train import train
from stillhouse.errors import UserError
from stillhouse.files import write_json, write_text
from stillhouse.models import cost, weights
from stillhouse.recipes import load
from stillhouse.recipes.schema import Recipe
from stillhouse.teachers.learner import Learner

RESULT = "result.json"
FORMAT = 2  # of a result
STUDENT = "student.safetensors"
TEACHER = "teacher.json"  # what the teacher of a run reached
MOVED = "teacher.safetensors"  # the teacher as acclimation left it
Score = dict[str, Any]


@contextmanager
def claimed(
    recipe: Recipe, folder: Path, resume: bool, overwrite: bool, patience: float = 0.0
) -> Iterator[None]:
    """A folder that this run alone writes, with the recipe and the environment in it."""
    digest = load.digest(recipe)

    def enter() -> Any:
        held = claim_folder(
            folder, resume=resume, overwrite=overwrite, recipe=digest, timeout=patience
        )
        write_text(folder / "recipe.yaml", load.to_yaml(recipe))
        if not (folder / RESULT).is_file():  # else it says where that was trained
            write_json(folder / "environment.json", environment.describe_environment())
        return held

    # the claim itself stays on the first rank, whose process holds the lock
    held: list[Any] = []
    on_first_rank(lambda: held.append(enter()))
    try:
        yield
    except UserError:
        if rank() == 0:
            forget(folder)
        raise
    finally:
        for claim_ in held:
            claim_.release()


def forget(folder: Path) -> None:
    """Leave no trace of a run that failed before it began, lest it block the mended one."""
    written = {"recipe.yaml", "environment.json", TEACHER}
    if {path.name for path in folder.iterdir()} - {LOCK, MARK} <= written:
        for name in written:
            (folder / name).unlink(missing_ok=True)


def train_one(
    recipe: Recipe,
    folder: Path,
    shop: Workshop,
    loaded: TeacherNetwork | None,
    *,
    resume: bool,
    until: float | None = None,
    blind: bool = False,
    say: Say = silent,
) -> Score:
    """One training with its evaluation; what is finished already is read."""
    teacher = "" if loaded is None else weights.state_hash(loaded.network)
    done = on_first_rank(lambda: finished(recipe, folder, teacher, blind=blind))
    if done is not None:
        return done
    on_first_rank(lambda: folder.mkdir(parents=True, exist_ok=True))
    environment.seed_everything(recipe.seed, recipe.engine.deterministic)
    with make_run(recipe, folder, shop, loaded, say) as run:
        run.teacher_hash = teacher
        torch.manual_seed(derive_seed(recipe.seed, rank()))  # whatever building drew
        if resume:
            state.resume(run)
        run.pause = None if until is None else round(until * run.steps_per_epoch)
        train(run)
        if not run.teacher.groups() and run.teacher.fingerprint() != teacher:
            raise UserError(
                f"the teacher {recipe.teacher and recipe.teacher.name} was changed by training; "
                "something writes into its weights or statistics, and the result means nothing"
            )
        if run.start < run.steps:
            state.save(run)
            return score_of(recipe, run, shop, {})
        return conclude(recipe, run, folder, shop, blind=blind)


def conclude(recipe: Recipe, run: Run, folder: Path, shop: Workshop, *, blind: bool) -> Score:
    """Measure the student as it ended, and write it with its result."""
    state.save(run)
    with state.averaged(run):
        network = run.inside.student.eval()
        test = {} if blind else evaluate(shop.task, network, shop.test(), shop.hardware)
        on_first_rank(lambda: weights.save(run.student, folder / STUDENT))
    score = score_of(recipe, run, shop, test)
    learner = run.teacher if isinstance(run.teacher, Learner) else None
    if learner is not None:
        score["acclimation"] = acclimated(learner, run, shop, blind=blind)

    def write() -> None:
        if learner is not None:
            weights.save(learner.network.model, folder / MOVED)
        contract = contract_of(recipe.student, shop.sources)
        write_text(folder / f"{STUDENT}{BESIDE}", contract.text())
        write_json(folder / "manifest.json", manifest(recipe, shop, run))
        write_json(folder / RESULT, score)  # last: it says that all the rest is there

    on_first_rank(write)
    return score


def acclimated(
    learner: Learner[Any], run: Run, shop: Workshop, *, blind: bool
) -> Mapping[str, Mapping[str, Mapping[str, float]]]:
    """What the teacher reached before it learned from its student, and after."""

    def look() -> Mapping[str, Mapping[str, float]]:
        network = learner.network.eval()
        splits = {"validation": shop.val} | ({} if blind else {"test": shop.test})
        return {
            name: evaluate(shop.task, network, batches(), shop.hardware)
            for name, batches in splits.items()
        }

    with learner.original():
        before = look()
    return {"before": before, "after": look()}


def score_of(recipe: Recipe, run: Run, shop: Workshop, test: Mapping[str, float]) -> Score:
    """What is known of a training where it stands."""
    return {
        "format": FORMAT,
        "name": recipe.student.name,
        "seed": recipe.seed,
        "recipe": load.digest(recipe),
        "teacher": run.teacher_hash,
        "headline": shop.task.headline,
        "test": dict(test),
        "validation": run.history[-1] if run.history else {},
        "history": run.history,
        "best": max(run.history, key=lambda h: h[shop.task.headline], default={}),
        "parameters": cost.parameters(run.student),
        "steps": run.start,
        "of": run.steps,
        "seconds": run.seconds,
    }


def manifest(recipe: Recipe, shop: Workshop, run: Run) -> Mapping[str, Any]:
    """What a result came from."""
    return {
        "recipe": load.digest(recipe),
        "teacher": run.teacher_hash,
        "student": weights.state_hash(run.student),
        "data": {
            name: source.fingerprint
            for name, source in (
                ("train", shop.sources.train),
                ("val", shop.sources.val),
                ("test", shop.sources.test),
            )
        },
        "seed": recipe.seed,
        "method": [method.name for method in recipe.method],
        "environment": environment.describe_environment(),
    }


def finished(recipe: Recipe, folder: Path, teacher: str, *, blind: bool = False) -> Score | None:
    """The result that a folder holds of this very recipe and teacher, if it does."""
    path = folder / RESULT
    if not path.is_file() or not (folder / STUDENT).is_file():
        return None
    try:
        score = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(score, dict):
        return None
    same = score.get("recipe") == load.digest(recipe) and score.get("teacher") == teacher
    return score if same and (blind or score.get("test")) else None
