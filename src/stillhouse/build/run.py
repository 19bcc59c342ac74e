"""From a recipe to a run. With `execute`, the only file that knows every room."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stillhouse.batches import Labelled
from stillhouse.data.loader import Loader
from stillhouse.data.source import labels_of
from stillhouse.distributed import rank, world_size
from stillhouse.engine.average import Average
from stillhouse.engine.devices import Hardware
from stillhouse.engine.optimisers import Optimiser
from stillhouse.engine.progress import show
from stillhouse.engine.pupil import Pupil
from stillhouse.engine.records import Records
from stillhouse.engine.run import Group, Run
from stillhouse.engine.schedules import rates
from stillhouse.errors import UserError, did_you_mean
from stillhouse.methods.acclimation import Acclimation
from stillhouse.methods.base import Method
from stillhouse.methods.per_teacher import Each
from stillhouse.methods.setting import Setting
from stillhouse.methods.combined import NoTerms
from stillhouse.models.taps import Tapped
from stillhouse.objectives.published import Published
from stillhouse.recipes import load, schema
from stillhouse.build.teacher import Say, learner_of, make_listener, silent
from stillhouse.methods.build import make_method, reshaped
from stillhouse.build.networks import Taught, example_of, make_student
from stillhouse.recipes.schema import Recipe
from stillhouse.build.data import make_training_loader
from stillhouse.build.workshop import Workshop
from stillhouse.tasks.base import Task
from stillhouse.tasks.classification import Classification
from stillhouse.tasks.multilabel import Multilabel
from stillhouse.teachers.base import Teacher as Listener


def make_pupil(recipe: Recipe, shop: Workshop, taught: Taught | None) -> Pupil[Labelled]:
    """A new student with its method, on the CPU."""
    refuse_several(recipe)
    student, example = make_student(recipe.student, shop.sources), example_of(shop.sources)
    method: Method = NoTerms()
    if taught is not None:
        setting = Setting(
            student, taught.inner.cpu(), example, lambda: labels_of(shop.sources.train)
        )
        student = reshaped(recipe.method, setting)
        method = teach(recipe, replace(setting, student=student), taught)
    refuse_mixed(recipe, method)
    return Pupil(Tapped(student, method.student_taps, (example,)), method, shop.task)


def teach(recipe: Recipe, setting: Setting, taught: Taught) -> Method:
    """The method of one teacher, or one for each of several that teach apart."""
    assert recipe.teacher is not None
    if recipe.teacher.teach == "together":
        return make_method(recipe.method, setting)
    settings = [replace(setting, teacher=member.inner) for member in taught.members]
    return Each([make_method(recipe.method, one) for one in settings])


def refuse_several(recipe: Recipe) -> None:
    """Refuse a method that asks for the one class of an image where it may have several."""
    if not isinstance(recipe.task, schema.Multilabel):
        return
    for spec in recipe.method:
        if "class" in spec.needs:
            raise UserError(
                f"method {spec.name} needs one class an image, and task multilabel has any number; "
                "take one that needs none, such as tld, or one for several, such as ps"
            )


def refuse_mixed(recipe: Recipe, method: Method) -> None:
    """Refuse mixed images for a method that asks for the labels of each."""
    if recipe.data.mix and method.needs_labels:
        raise UserError(
            f"method {recipe.method[0].name} needs the labels of each image, and data.mix gives "
            "shares of two images; leave data.mix out, or take a method that needs no labels"
        )


@contextmanager
def make_run(
    recipe: Recipe, folder: Path, shop: Workshop, taught: Taught | None, say: Say = silent
) -> Iterator[Run]:
    """Everything that one training owns; its files are closed at the end."""
    hardware, engine = shop.hardware, recipe.engine
    pupil = make_pupil(recipe, shop, taught)
    student, method = pupil.student.model, pupil.method
    if engine.channels_last and hardware.device.type != "cpu":  # there torch corrupts its heap
        pupil.to(memory_format=torch.channels_last)
    if engine.compile:
        pupil.student.compile()
    prepared = hardware.prepare(pupil)
    loader = make_training_loader(recipe, shop.sources, hardware.device, method.views)
    accumulate = recipe.train.accumulate
    per_epoch = max(1, len(loader) // accumulate)
    steps, course = max(1, round(recipe.train.epochs * per_epoch)), recipe.train.course
    listener = make_listener(recipe, shop, taught, method, say)
    groups = make_groups(recipe, pupil, listener)
    learner = learner_of(listener)
    records = Records(folder, tensorboard=engine.tensorboard) if rank() == 0 else None
    images = recipe.data.batch * accumulate * world_size()
    with show(steps, images=images, first_rank=rank() == 0 and not shop.quiet) as progress:
        try:
            yield Run(
                pupil=prepared,
                teacher=listener,
                task=shop.task,
                loader=loader,
                groups=groups,
                hardware=hardware,
                steps=steps,
                folder=folder,
                recipe_hash=load.digest(recipe),
                accumulate=accumulate,
                clip=recipe.train.clip,
                average=Average(student, recipe.train.average) if recipe.train.average else None,
                records=records,
                progress=progress,
                validation=shop.val,
                moved=None if learner is None else learner.network,
                course=None if course is None else round(course * per_epoch),
                log_every=engine.log_every,
                evaluate_every=round(engine.evaluate_every * per_epoch),
                save_every=round(engine.save_every * per_epoch),
            )
        finally:
            if records:
                records.close()


def make_groups(recipe: Recipe, pupil: Pupil[Any], teacher: Listener[Any]) -> dict[str, Group]:
    """An optimiser for each group of parameters, the student's where none is named."""
    training, groups = recipe.train, pupil.groups()
    for group, moving in teacher.groups().items():
        groups[group] = [(f"{group}.{index}", p) for index, p in enumerate(moving)]
    for name in training.groups:
        if name not in groups:
            raise UserError(
                f"train.groups.{name}: nothing trainable is called that; there are "
                f"{', '.join(groups)}" + did_you_mean(name, groups)
            )
    made = {}
    for name, parameters in groups.items():
        spec = training.groups.get(name) or optimiser_of(name, recipe)
        optimiser = spec.build(parameters)
        made[name] = Group(optimiser, training.schedule, rates(optimiser))
    return made


def optimiser_of(group: str, recipe: Recipe) -> Optimiser:
    """The student's optimiser; for a teacher that learns, at the rate that acclimation says."""
    spec = recipe.train.optimiser
    rates = [method.rate for method in recipe.method if isinstance(method, Acclimation)]
    return replace(spec, lr=spec.lr * rates[0]) if group == "teacher" and rates else spec
