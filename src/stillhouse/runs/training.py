"""One training in a folder: the lock of the folder, the training or its rest, and its result."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from stillhouse.build.contract import CONTRACT_SUFFIX, file_hash
from stillhouse.build.networks import TeacherNetwork, make_contract
from stillhouse.build.run import make_run
from stillhouse.build.session import Session
from stillhouse.build.store import Say, silent
from stillhouse.data.random import derive_seed
from stillhouse.data.record import find_change, measured_split
from stillhouse.distributed import on_first_rank, rank
from stillhouse.engine import checkpoints, environment, state
from stillhouse.engine.evaluate import errors_of, evaluate, measure
from stillhouse.engine.finite import check_weights
from stillhouse.engine.folder import (
    LOCK,
    MARK,
    FolderInUse,
    lock_folder,
    remove_partial_files,
)
from stillhouse.engine.interrupt import Interrupt, Stopped
from stillhouse.engine.run import Run
from stillhouse.engine.train import train
from stillhouse.errors import UserError
from stillhouse.files import lock_owner, read_json, write_json, write_text
from stillhouse.models import cost, weights
from stillhouse.models.taps import Tapped
from stillhouse.recipes import load
from stillhouse.recipes.schema import Recipe
from stillhouse.runs.chance import acclimation_warnings, chance_warnings
from stillhouse.runs.scores import MANIFEST, Score, parse_result, read_manifest

RESULT = "result.json"
CONTROL_FOLDER = "control"  # of the control in the folder of a run
RESULT_FORMAT = 2  # version of result.json
STUDENT = "student.safetensors"
TEACHER = "teacher.json"  # scores of the teacher before training
TRAINED_TEACHER = "teacher.safetensors"  # the teacher after acclimation
LOCK_POLL = 1.0  # seconds between two looks at whether a wait was interrupted


@contextmanager
def claim_folder(
    recipe: Recipe,
    folder: Path,
    resume: bool,
    overwrite: bool,
    lock_timeout: float = 0.0,
    kept: Collection[str] = (),
) -> Iterator[None]:
    """Hold the lock of a run's folder, and write the recipe and the environment to it.

    `lock_timeout` is how many seconds to wait for another process that holds the lock. `kept` are
    the names of what stays in a folder that is overwritten.
    """
    digest = load.digest(recipe)

    def enter() -> Any:
        lock = lock_folder(
            folder,
            resume=resume,
            overwrite=overwrite,
            recipe=digest,
            timeout=lock_timeout,
            kept=kept,
        )
        write_text(folder / "recipe.yaml", load.to_yaml(recipe))
        if not (folder / RESULT).is_file():  # otherwise the file describes where that was trained
            write_json(folder / "environment.json", environment.describe_environment())
        return lock

    # only the first rank has a lock, because it belongs to one process
    locks: list[Any] = []
    on_first_rank(lambda: locks.append(enter()))
    try:
        yield
    except UserError:
        if rank() == 0:
            remove_unstarted(folder)
        raise
    finally:
        for lock in locks:
            lock.release()


@contextmanager
def claim_when_free(
    recipe: Recipe, folder: Path, device: torch.device, say: Say = silent
) -> Iterator[None]:
    """Hold the lock of the folder of a teacher; waits while another process trains it.

    Raises Stopped on an interrupt while it waits.
    """
    announced = False
    with ExitStack() as claim:
        with Interrupt() as interrupt:
            while True:
                try:
                    claim.enter_context(claim_folder(recipe, folder, True, False, LOCK_POLL))
                    break
                except FolderInUse:
                    if not announced:
                        owner = lock_owner(folder / LOCK)
                        say(f"teacher: waiting for process {owner}, which trains it in {folder}")
                        announced = True
                if interrupt.requested_on_any_rank(device):
                    raise Stopped
        yield


def remove_unstarted(folder: Path) -> None:
    """Remove the files of a run that failed before training, so that the folder can be reused."""
    written = {"recipe.yaml", "environment.json", TEACHER}
    if {path.name for path in folder.iterdir()} - {LOCK, MARK} <= written:
        for name in written:
            (folder / name).unlink(missing_ok=True)


def run_training(
    recipe: Recipe,
    folder: Path,
    session: Session,
    loaded: TeacherNetwork | None,
    *,
    resume: bool,
    until: float | None = None,
    blind: bool = False,
    say: Say = silent,
    role: str = "student",
) -> Score:
    """Train and evaluate the student of a recipe, or read the result if it is finished.

    `until` is an epoch to stop after; with `blind`, the test split is not used. `role` is teacher,
    control or student, in the heading. Raises UserError if training changed a teacher that is not
    trained.
    """
    teacher = "" if loaded is None else weights.state_hash(loaded.network)
    data = session.describe_data()
    result = on_first_rank(lambda: read_result(recipe, folder, teacher, data, blind=blind))
    if result is not None:
        return result
    on_first_rank(lambda: prepare_folder(folder))
    environment.seed_everything(recipe.seed, recipe.engine.deterministic)
    with make_run(recipe, folder, session, loaded, say) as run:
        run.teacher_hash = teacher
        torch.manual_seed(derive_seed(recipe.seed, rank()))  # independent of what building drew
        if resume:
            state.resume_run(run)
        say(training_heading(role, recipe, folder, run.start / run.steps_per_epoch))
        run.pause = None if until is None else round(until * run.steps_per_epoch)
        train(run)
        if not run.teacher.groups() and run.teacher.fingerprint() != teacher:
            raise UserError(
                f"the teacher {recipe.teacher and recipe.teacher.name} was changed by training, so "
                "the result is invalid; find the code that writes to its weights or statistics"
            )
        if run.start < run.steps:
            state.save_run(run)
            return make_score(recipe, run, session)
        return finish_training(recipe, run, folder, session, blind=blind)


def training_heading(role: str, recipe: Recipe, folder: Path, begun: float = 0.0) -> str:
    """What is trained: role, network, method, epochs and seed, and the epoch to continue at.

    That of a teacher names its folder, which is in the cache.
    """
    taught = " without a teacher" if role == "control" else ""
    if recipe.distils:
        taught = f" with {' and '.join(method.name for method in recipe.method)}"
    epochs = f"{recipe.train.epochs:g} epoch{'' if recipe.train.epochs == 1 else 's'}"
    rest = f", continued at epoch {begun:.3g}" if begun else ""
    rest += f", in {folder}" if role == "teacher" else ""
    return f"{role}: training {recipe.student.name}{taught}, {epochs}, seed {recipe.seed}{rest}"


def prepare_folder(folder: Path) -> None:
    """Create the folder of a training, and remove what a killed one left half written there."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_partial_files(folder)


def finish_training(
    recipe: Recipe, run: Run, folder: Path, session: Session, *, blind: bool
) -> Score:
    """Evaluate the trained student, and write its weights and the result."""

    def save_student() -> str:
        weights.save_weights(run.student, folder / STUDENT)
        return weights.state_hash(run.student)

    check_weights(run.student, "student")
    state.save_run(run)
    with state.averaged_weights(run):
        network, meter = run.bare_pupil.student.eval(), None
        if not blind:
            meter = measure(session.task, network, session.measured(), session.hardware, "student")
        student_hash = on_first_rank(save_student)
    score = make_score(recipe, run, session)
    if meter is not None:
        score |= {"split": session.score_split, session.score_split: dict(meter.summary())}
        if errors := errors_of(meter):
            score["errors"] = errors
    part = score["split"]
    measured = session.sources.val if part == "validation" else session.sources.measured
    if session.sources.notes:
        score["notes"] = list(session.sources.notes)  # on samples that were left out
    warnings = chance_warnings(session.task, score[part], part, measured)
    teacher = run.teacher.trained_network
    if teacher is not None:
        score["acclimation"] = acclimation_scores(teacher, run, session, blind=blind)
        warnings += acclimation_warnings(session.task, score["acclimation"])
    if warnings:
        score["warnings"] = warnings

    def write() -> None:
        if teacher is not None:
            weights.save_weights(teacher.model, folder / TRAINED_TEACHER)
        contract = make_contract(recipe.student, session.sources)
        contract = replace(contract, sha256=file_hash(folder / STUDENT))
        write_text(folder / f"{STUDENT}{CONTRACT_SUFFIX}", contract.text())
        write_json(folder / MANIFEST, make_manifest(recipe, run, student_hash))
        if run.records:
            run.records.close()  # before the result, so that a finished training has its table
        write_json(folder / RESULT, score)  # last, as the mark of a finished training
        checkpoints.previous_path(folder / state.STATE).unlink(missing_ok=True)

    on_first_rank(write)
    return score


def acclimation_scores(
    teacher: Tapped, run: Run, session: Session, *, blind: bool
) -> Mapping[str, Mapping[str, Mapping[str, float]]]:
    """The scores of a trained teacher, `before` and `after` training, by split."""

    def evaluate_splits() -> Mapping[str, Mapping[str, float]]:
        network = teacher.eval()
        splits = {"validation": session.val}
        splits |= {} if blind else {session.score_split: session.measured}
        return {
            name: evaluate(session.task, network, batches(), session.hardware, "teacher")
            for name, batches in splits.items()
        }

    with run.teacher.initial_weights():
        before = evaluate_splits()
    return {"before": before, "after": evaluate_splits()}


def make_score(recipe: Recipe, run: Run, session: Session) -> Score:
    """The result of a training at its current step, with scores of validation."""
    last = run.history[-1] if run.history else {}
    return {
        "format": RESULT_FORMAT,
        "name": recipe.student.name,
        "seed": recipe.seed,
        "recipe": load.digest(recipe),
        "teacher": run.teacher_hash,
        "headline": session.task.headline,
        "split": "validation",  # of the scores that are reported
        "test": {},
        "validation": {name: value for name, value in last.items() if name != "step"},
        "history": run.history,
        "best": max(run.history, key=lambda h: h[session.task.headline], default={}),
        "parameters": cost.parameters(run.student),
        "steps": run.start,
        "of": run.steps,
        "seconds": run.seconds,
    }


def make_manifest(recipe: Recipe, run: Run, student_hash: str) -> Mapping[str, Any]:
    """The hashes, seed and environment that a result was computed from."""
    return {
        "recipe": load.digest(recipe),
        "teacher": run.teacher_hash,
        "student": student_hash,
        **run.data,
        "seed": recipe.seed,
        "method": [method.name for method in recipe.method],
        "environment": environment.describe_environment(),
    }


def read_result(
    recipe: Recipe,
    folder: Path,
    teacher: str,
    data: Mapping[str, Any],
    *,
    blind: bool = False,
    splits: Iterable[str] | None = None,
) -> Score | None:
    """The result in a folder, None unless it is of this recipe and teacher.

    A result that is not of the split that scores are measured on counts only if `blind`. Raises
    UserError for a result of other `data`, compared in some `splits`, by default all.
    """
    path = folder / RESULT
    if not path.is_file() or not (folder / STUDENT).is_file():
        return None
    try:
        score = read_json(path, lambda content: parse_result(content, folder), "delete it")
    except UserError:
        return None
    if score.get("recipe") != load.digest(recipe) or score.get("teacher") != teacher:
        return None
    if change := find_change(read_manifest(folder), data, splits):
        raise UserError(
            f"{folder} was trained on other data: {change}; restore the data, or delete {folder} "
            "to train again"
        )
    # of a teacher on other splits, only the weights are used
    return score if blind or splits or score["split"] == measured_split(data) else None
