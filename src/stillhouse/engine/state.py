"""Saves and restores the state of a run, and keeps the batch of a non-finite loss."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from stillhouse.data.record import find_change
from stillhouse.distributed import copy_buffers, gather_objects, rank, world_size
from stillhouse.engine import checkpoints
from stillhouse.engine.run import Run
from stillhouse.engine.watch import NonFiniteLoss, Watch
from stillhouse.errors import UserError

STATE = "state.pt"
NONFINITE_BATCH = "nonfinite.pt"


def save_run(run: Run) -> None:
    """Write everything that the next step depends on; all ranks must call this."""
    random_states = gather_objects(checkpoints.random_state())
    if run.folder is None or rank() != 0:
        return
    checkpoints.save_checkpoint(
        run.folder / STATE,
        {
            "step": run.start,
            "recipe": run.recipe_hash,
            "pupil": run.bare_pupil.state_dict(),
            "teacher": dict(run.teacher.state()),
            "groups": {name: group.optimiser.state_dict() for name, group in run.groups.items()},
            "rates": {name: list(group.rates) for name, group in run.groups.items()},
            "scaler": run.hardware.scaler.state_dict(),
            "average": run.average.state_dict() if run.average else {},
            "history": run.history,
            "teacher_hash": run.teacher_hash,
            "data": dict(run.data),
            "seconds": run.seconds,
            "random": random_states,
        },
    )


def resume_run(run: Run) -> bool:
    """Restore the state that is saved in the run's folder; False if there is none.

    Raises UserError for a state of another recipe, teacher, data or number of processes.
    """
    path = None if run.folder is None else run.folder / STATE
    if path is None or not path.exists():
        if run.records:
            run.records.truncate(0)
        return False
    saved = checkpoints.load_checkpoint(path)
    if saved["recipe"] != run.recipe_hash:
        raise UserError(f"{path} was written by another recipe; choose another folder")
    if saved["teacher_hash"] != run.teacher_hash:
        raise UserError(
            f"{path} was written with other weights of the teacher; restore those weights, or "
            "start again with --overwrite"
        )
    if change := run.data and find_change(saved.get("data", {}), run.data):
        raise UserError(
            f"{path} was written with other data: {change}; restore the data, or delete "
            f"{path.parent} to train again"
        )
    if (before := len(saved["random"])) != world_size():
        raise UserError(
            f"{path} was written by {before} process{'es' if before > 1 else ''}, but this run has "
            f"{world_size()}, and its steps would be others; resume it with as many, or delete "
            f"{path.parent} to train again"
        )
    run.bare_pupil.load_state_dict(saved["pupil"])
    run.teacher.restore(saved["teacher"])
    for name, group in run.groups.items():
        group.optimiser.load_state_dict(saved["groups"][name])
        group.rates = list(saved["rates"][name])
    run.hardware.scaler.load_state_dict(saved["scaler"])
    if run.average:
        run.average.load_state_dict(saved["average"])
    run.start, run.history = int(saved["step"]), list(saved["history"])
    run.earlier_seconds = float(saved["seconds"])
    checkpoints.restore_random_state(saved["random"][rank()])
    if run.records:
        run.records.truncate(run.start)
    return True


def refuse_nonfinite(run: Run, watch: Watch) -> None:
    """Stop at a loss that is not finite, name its terms, and keep the batch."""
    failure = watch.failure()
    if failure is None:
        return
    kept = keep_batch(run, failure.step)
    where = f"; its batch is kept in {kept}" if kept else ""
    if failure.without_mass:
        raise NonFiniteLoss(
            f"at step {failure.step} the total of {', '.join(failure.without_mass)} has no mass"
            f"{where}: give the term a mass or a least mass"
        )
    raise NonFiniteLoss(
        f"the loss is not finite at step {failure.step}, in {', '.join(failure.terms)}{where}: "
        "lower the learning rate or the weight of the term, clip gradients, or train in float32"
    )


def keep_batch(run: Run, step: int) -> Path | None:
    """Write the batches of one step, loaded again, for debugging; the path, None on other ranks."""
    if run.folder is None or rank() != 0:
        return None
    epoch, inner = divmod(step, run.steps_per_epoch)
    stream = run.loader.epoch(epoch, inner * run.accumulate)
    batches = [next(stream).plain() for _ in range(run.accumulate)]
    path = run.folder / NONFINITE_BATCH
    checkpoints.save_checkpoint(
        path, {"step": step, "batches": batches, "pupil": run.bare_pupil.state_dict()}
    )
    return path


@contextmanager
def averaged_weights(run: Run) -> Iterator[None]:
    """A context in which the student is as it is saved, on all ranks.

    It has its averaged weights, if the run keeps an average, and the first rank's buffers.
    """
    averaged: AbstractContextManager[None] = (
        nullcontext() if run.average is None else run.average.applied(run.student)
    )
    with averaged:
        copy_buffers(run.student)
        yield
