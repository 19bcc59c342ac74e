"""What a run writes to be taken up again, and what it keeps of a failure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stillhouse.distributed import gather_objects, rank
from stillhouse.engine import checkpoints
from stillhouse.engine.run import Run
from stillhouse.engine.watch import NonFiniteLoss, Watch
from stillhouse.errors import UserError

STATE = "state.pt"
BATCH = "nonfinite.pt"


def save(run: Run) -> None:
    """Write everything that the next step depends on; every rank must come here."""
    randoms = gather_objects(checkpoints.random_state())
    if run.folder is None or rank() != 0:
        return
    checkpoints.save_checkpoint(
        run.folder / STATE,
        {
            "step": run.start,
            "recipe": run.recipe_hash,
            "pupil": run.inside.state_dict(),
            "teacher": dict(run.teacher.state()),
            "groups": {name: group.optimiser.state_dict() for name, group in run.groups.items()},
            "rates": {name: list(group.rates) for name, group in run.groups.items()},
            "scaler": run.hardware.scaler.state_dict(),
            "average": run.average.state_dict() if run.average else {},
            "history": run.history,
            "teacher_hash": run.teacher_hash,
            "seconds": run.seconds,
            "random": randoms,
        },
    )


def resume(run: Run) -> bool:
    """Put the run where its folder says it was; False when nothing was saved yet."""
    path = None if run.folder is None else run.folder / STATE
    if path is None or not path.exists():
        if run.records:
            run.records.truncate(0)
        return False
    found = checkpoints.load_checkpoint(path)
    if found["recipe"] != run.recipe_hash:
        raise UserError(f"{path} was written by another recipe; choose another folder")
    if found["teacher_hash"] != run.teacher_hash:
        raise UserError(
            f"{path} was begun with other weights of the teacher; put those back, "
            "or begin anew with --overwrite"
        )
    run.inside.load_state_dict(found["pupil"])
    run.teacher.restore(found["teacher"])
    for name, group in run.groups.items():
        group.optimiser.load_state_dict(found["groups"][name])
        group.rates = list(found["rates"][name])
    run.hardware.scaler.load_state_dict(found["scaler"])
    if run.average:
        run.average.load_state_dict(found["average"])
    run.start, run.history = int(found["step"]), list(found["history"])
    run.spent = float(found["seconds"])
    mine = found["random"][rank() % len(found["random"])]
    checkpoints.restore_random_state(mine)
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
    """Write the batches of one step, which the loader makes again, for replay."""
    if run.folder is None or rank() != 0:
        return None
    epoch, inner = divmod(step, run.steps_per_epoch)
    stream = run.loader.epoch(epoch, inner * run.accumulate)
    batches = [next(stream).plain() for _ in range(run.accumulate)]
    path = run.folder / BATCH
    checkpoints.save_checkpoint(
        path, {"step": step, "batches": batches, "pupil": run.inside.state_dict()}
    )
    return path


@contextmanager
def averaged(run: Run) -> Iterator[None]:
    """Inside, the student has its averaged weights, where the run keeps an average."""
    if run.average is None:
        yield
        return
    with run.average.applied(run.student):
        yield
