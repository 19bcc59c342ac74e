"""From a recipe to a run: the pupil, its optimisers, and everything that one training owns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stillhouse.build.data import make_training_loader
from stillhouse.build.networks import TeacherNetwork, example_of, make_student
from stillhouse.build.store import Say, silent
from stillhouse.build.teacher import make_teacher
from stillhouse.build.workshop import Workshop
from stillhouse.data.source import Source, targets_of
from stillhouse.distributed import rank, world_size
from stillhouse.engine.average import WeightEMA
from stillhouse.engine.optimisers import Optimiser
from stillhouse.engine.progress import create_progress
from stillhouse.engine.pupil import Pupil
from stillhouse.engine.records import Records
from stillhouse.engine.run import Group, Run
from stillhouse.engine.schedules import learning_rates
from stillhouse.errors import UserError, did_you_mean
from stillhouse.methods.base import Method
from stillhouse.methods.build import make_method, reshaped
from stillhouse.methods.combined import NoTerms
from stillhouse.methods.per_teacher import PerTeacher
from stillhouse.methods.setting import Setting
from stillhouse.models.taps import Tapped
from stillhouse.recipes import load
from stillhouse.recipes.schema import Recipe, Training
from stillhouse.teachers.base import Teacher
from stillhouse.teachers.learner import Learner


def make_pupil(recipe: Recipe, shop: Workshop, loaded: TeacherNetwork | None) -> Pupil[Any]:
    """A new student with its method, on the CPU."""
    check_labels(recipe.method, shop.sources.train)
    student, example = make_student(recipe.student, shop), example_of(shop.sources)
    method: Method = NoTerms()
    if loaded is not None:
        setting = Setting(
            student, loaded.inner.cpu(), example, lambda: labels_of(shop.sources.train)
        )
        student = reshaped(recipe.method, setting)
        setting = replace(setting, student=student)
        method = method_of(recipe.method, setting, loaded.members if apart(recipe) else ())
    if recipe.data.mix:
        check_mixing(recipe.method, method)
    return Pupil(Tapped(student, method.student_taps, (example,)), method, shop.task)


def apart(recipe: Recipe) -> bool:
    """Whether each member of an ensemble has terms of its own."""
    return recipe.teacher is not None and recipe.teacher.teach == "apart"


def method_of(
    specs: Sequence[Any], setting: Setting, members: Sequence[TeacherNetwork] = ()
) -> Method:
    """The method of one teacher, or one for each of several."""
    if not members:
        return make_method(specs, setting)
    settings = [replace(setting, teacher=member.inner) for member in members]
    return PerTeacher([make_method(specs, one) for one in settings])


def labels_of(train: Source) -> Tensor:
    """The labels of every training sample, for methods that keep a memory: (samples, ...)."""
    targets = targets_of(train)
    if not isinstance(targets, Tensor):
        raise UserError(
            f"the method needs the labels of every sample, which {train.name} does not have"
        )
    return targets


def check_labels(specs: Sequence[Any], train: Source) -> None:
    """Refuse a method that needs the one class of an image where the data do not give it."""
    if train[0].target is None or isinstance(train[0].target, int):
        return
    for spec in specs:
        if "class" in spec.needs:
            raise UserError(
                f"method {spec.name} needs one class per image, but {train.name} has other "
                "targets; "
                "choose a method that does not, such as tld, or one for several "
                "classes, such as ps"
            )


def check_mixing(specs: Sequence[Any], method: Method) -> None:
    """Refuse mixed images for a method that needs the labels of each."""
    if method.needs_labels:
        raise UserError(
            f"method {specs[0].name} needs the labels of each image, but data.mix gives shares of "
            "two images; leave data.mix out, or choose a method that needs no labels"
        )


@contextmanager
def make_run(
    recipe: Recipe, folder: Path, shop: Workshop, loaded: TeacherNetwork | None, say: Say = silent
) -> Iterator[Run]:
    """Everything that one training owns; its files are closed at the end."""
    hardware, engine = shop.hardware, recipe.engine
    pupil = make_pupil(recipe, shop, loaded)
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
    teacher = make_teacher(recipe, shop, loaded, method, say)
    groups = make_groups(recipe.train, pupil, teacher)
    records = Records(folder, tensorboard=engine.tensorboard) if rank() == 0 else None
    images = recipe.data.batch * accumulate * world_size()
    with create_progress(
        steps, images=images, first_rank=rank() == 0 and not shop.quiet
    ) as progress:
        try:
            yield Run(
                pupil=prepared,
                teacher=teacher,
                task=shop.task,
                loader=loader,
                groups=groups,
                hardware=hardware,
                steps=steps,
                folder=folder,
                recipe_hash=load.digest(recipe),
                accumulate=accumulate,
                clip=recipe.train.clip,
                average=WeightEMA(student, recipe.train.average) if recipe.train.average else None,
                records=records,
                progress=progress,
                validation=shop.val,
                moved=teacher.network if isinstance(teacher, Learner) else None,
                course=None if course is None else round(course * per_epoch),
                log_every=engine.log_every,
                evaluate_every=round(engine.evaluate_every * per_epoch),
                save_every=round(engine.save_every * per_epoch),
            )
        finally:
            if records:
                records.close()


def make_groups(training: Training, pupil: Pupil[Any], teacher: Teacher[Any]) -> dict[str, Group]:
    """An optimiser for each group of parameters, the student's where none is named."""
    groups = pupil.groups()
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
        spec = training.groups.get(name) or optimiser_of(name, training.optimiser, pupil.method)
        optimiser = spec.build(parameters)
        made[name] = Group(optimiser, training.schedule, learning_rates(optimiser))
    return made


def optimiser_of(group: str, spec: Optimiser, method: Method) -> Optimiser:
    """The student's optimiser; for trained layers of the teacher, at the method's rate."""
    return replace(spec, lr=spec.lr * method.teacher_rate) if group == "teacher" else spec
