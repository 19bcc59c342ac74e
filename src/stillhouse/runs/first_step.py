"""The first step of a training, made before the training on a few images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from time import perf_counter
from typing import Any, NamedTuple

from torch import nn

from stillhouse.batches import Batch
from stillhouse.build.data import make_training_loader
from stillhouse.build.networks import TeacherNetwork
from stillhouse.build.run import make_groups
from stillhouse.build.session import Session
from stillhouse.build.teacher import check_storable, make_live
from stillhouse.distributed import combine, gather_objects
from stillhouse.engine.finite import has_finite_numbers
from stillhouse.engine.pupil import Pupil
from stillhouse.errors import UserError
from stillhouse.methods.base import Method
from stillhouse.models import cost
from stillhouse.recipes.schema import Recipe
from stillhouse.teachers.base import Teacher, observe
from stillhouse.teachers.frozen import NoTeacher
from stillhouse.types import Clock, Terms

FEW = 2  # images at least, as some losses compare images
UNTIMED = 8  # images at most where the time of a step does not matter
WARM = 0.5  # seconds of a first step, below which a second one is timed instead
MOST_VALUES = 2**20  # in the images of a first step, so that it takes seconds for large images


class FirstStep(NamedTuple):
    """What the first step of a training showed, and what it says of the whole training."""

    terms: Mapping[str, tuple[float, float]]  # the value and weight of each term
    steps: int  # of the whole training
    seconds: float  # of the student's forward and backward, at the batch of the recipe
    teacher_seconds: float  # of the teacher's forward, at the batch of the recipe
    memory: int  # bytes of weights, gradients, optimiser and activations, at that batch
    student: nn.Module  # as it is trained
    method_parameters: int  # of adapters and other layers of the method


def take_first_step(
    recipe: Recipe,
    session: Session,
    loaded: TeacherNetwork | None,
    pupil: Pupil[Any],
    *,
    timed: bool = False,
) -> FirstStep:
    """Run one forward and backward pass on a few images, at most a batch.

    With `timed`, a fast step is made twice, because the first one also sets up kernels. Raises
    UserError for what training would raise at its start, and for a loss that is not finite.
    """
    device, views = session.hardware.device, pupil.method.views
    pupil.to(device).train()
    teacher = make_uncached_teacher(recipe, session, loaded, pupil.method)
    make_groups(recipe.train, pupil, teacher)
    loader = make_training_loader(recipe, session.sources, device, views)
    per_epoch = max(1, len(loader) // recipe.train.accumulate)
    batch = load_few_images(recipe, session, views, recipe.data.batch if timed else UNTIMED)
    with cost.SavedBytes() as saved:
        seconds, terms = time_step(pupil, teacher, batch, session)
    # Each step waits for the other ranks, so all of them make as many, whatever time they took.
    if timed and max(gather_objects(sum(seconds))) < WARM:
        seconds, _ = time_step(pupil, teacher, batch, session)
    scale = recipe.data.batch / len(batch)
    weights = 4 * cost.size(pupil) + (0 if loaded is None else cost.size(loaded.network))
    return FirstStep(
        {name: (float(term.mean().detach()), float(term.weight)) for name, term in terms.items()},
        max(1, round(recipe.train.epochs * per_epoch)),
        seconds[1] * scale * recipe.train.accumulate,
        seconds[0] * scale * recipe.train.accumulate,
        round(weights + saved.total * scale),
        pupil.student.model,
        cost.parameters(pupil.method),
    )


def time_step(
    pupil: Pupil[Any], teacher: Teacher[Any], batch: Batch[Any], session: Session
) -> tuple[tuple[float, float], Terms]:
    """The seconds of the teacher's forward and of the student's forward and backward; the terms."""
    with session.hardware.autocast():
        start = perf_counter()
        heard = observe(teacher, batch, pupil.method.views)
        cost.synchronize(batch.images)
        taught = perf_counter()
        terms = pupil(batch, heard, Clock(0, 1, 1))
        loss = combine(terms)
    if not bool(loss.isfinite()):
        if not all(has_finite_numbers(trace.out) for trace in heard.values()):
            raise UserError(
                "the teacher gives NaN or infinite numbers for training images; check its weights "
                "and the mean and std of its images"
            )
        raise UserError(
            f"the first loss is {float(loss.detach())}; lower the weights, or train in float32"
        )
    loss.backward()
    cost.synchronize(batch.images)
    return (taught - start, perf_counter() - taught), terms


def load_few_images(recipe: Recipe, session: Session, views: int, most: int) -> Batch[Any]:
    """A training batch of at most so many images, fewer if they are large."""
    values = session.sources.channels * session.sources.size[0] * session.sources.size[1]
    few = min(most, recipe.data.batch, max(FEW, MOST_VALUES // values))
    short = replace(
        recipe,
        data=replace(recipe.data, batch=few),
        engine=replace(recipe.engine, workers=0),
    )
    loader = make_training_loader(short, session.sources, session.hardware.device, views)
    batch: Batch[Any] = next(iter(loader.epoch(0)))
    return batch


def make_uncached_teacher(
    recipe: Recipe, session: Session, loaded: TeacherNetwork | None, method: Method
) -> Teacher[Any]:
    """The teacher without its cache; raises UserError if its outputs cannot be cached."""
    if loaded is None:
        return NoTeacher()
    check_storable(recipe, method)
    return make_live(session, loaded, method)
