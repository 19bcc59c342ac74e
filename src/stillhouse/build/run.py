"""Builds a run from a recipe: the pupil, its optimisers, and all other objects of a training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stillhouse.batches import Batch
from stillhouse.build.data import make_training_loader
from stillhouse.build.inherit import check_class_order, inherit_weights
from stillhouse.build.networks import TeacherNetwork, example_of, make_student
from stillhouse.build.session import Session
from stillhouse.build.store import Say, silent
from stillhouse.build.teacher import make_teacher
from stillhouse.build.unlabelled import check_without_labels
from stillhouse.data.source import Pixels, Source, targets_of
from stillhouse.data.targets import SampleTarget, is_spatial
from stillhouse.distributed import rank, world_size
from stillhouse.engine.average import WeightEMA
from stillhouse.engine.optimisers import Optimiser
from stillhouse.engine.progress import create_progress
from stillhouse.engine.pupil import Pupil
from stillhouse.engine.rank_norm import share_norms
from stillhouse.engine.records import Records
from stillhouse.engine.run import Group, Run
from stillhouse.engine.schedules import learning_rates
from stillhouse.errors import UserError, did_you_mean
from stillhouse.methods.base import Method
from stillhouse.methods.build import make_method, reshape_student
from stillhouse.methods.combined import NoTerms
from stillhouse.methods.per_teacher import PerTeacher
from stillhouse.methods.setting import Setting
from stillhouse.models.dry_run import undisturbed
from stillhouse.models.taps import Tapped
from stillhouse.recipes import load
from stillhouse.recipes.schema import Recipe, TeacherSpec, Training
from stillhouse.teachers.base import Teacher
from stillhouse.types import missing_site

# groups that only some methods have, and so only some arms of a study, or no control
OPTIONAL_GROUPS = ("method", "critic", "teacher")


def make_pupil(
    recipe: Recipe, session: Session, loaded: TeacherNetwork | None, say: Say = silent
) -> Pupil[Any]:
    """A new student with its method, on the CPU; it inherits what the recipe names."""
    if recipe.data.unlabelled is not None:
        check_without_labels(recipe.method, session.task, alone=session.sources.alone)
    check_labels(recipe.method, session.sources.train)
    student, example = make_student(recipe.student, session), example_of(session.sources)
    method: Method = NoTerms()
    if loaded is not None:
        check_heads(recipe.method, loaded)
        loaded.network.cpu()
        if recipe.student.inherit:
            say(inherit_weights(student, loaded, recipe.student.inherit))
        setting = Setting(
            student, loaded.inner, example, lambda: training_labels(session.sources.train)
        )
        student = reshape_student(recipe.method, setting)
        setting = replace(setting, student=student)
        members = loaded.members if taught_apart(recipe.teacher) else ()
        method = method_for_teachers(recipe.method, setting, members)
        check_pair(student, loaded.network, session, method)
    if recipe.data.mix:
        check_mixing(recipe.method, method)
    if recipe.train.sync_norms:
        student, method = share_norms(student), share_norms(method)
    return Pupil(Tapped(student, method.student_taps, (example,)), method, session.task)


def check_heads(specs: Sequence[Any], teacher: TeacherNetwork) -> None:
    """Raise UserError for a method that uses the head of a teacher with classes of its own."""
    for spec in specs:
        if "head" in spec.needs:
            check_class_order(teacher, f"method {spec.name} uses the teacher's head")


def check_pair(student: nn.Module, teacher: nn.Module, session: Session, method: Method) -> None:
    """Raise UserError for a student and a teacher that cannot be compared as the method needs."""
    example = example_of(session.sources)
    keys = torch.arange(len(example))
    inputs = session.task.inputs(Batch(example, None, keys, torch.zeros_like(keys)))
    with undisturbed(student), undisturbed(teacher):
        ours, theirs = student(*inputs), teacher(*inputs)
    if theirs is None:  # a teacher that gives features only
        return
    session.task.check_pair(ours, theirs)
    sites_of = getattr(session.task, "pair_sites", None)  # of tasks whose networks differ in them
    known = method.sites if sites_of is None else sites_of(ours, theirs)
    for site in method.sites:
        if site.partition("@")[0] not in known and site not in known:
            raise missing_site(site, known)


def taught_apart(teacher: TeacherSpec | None) -> bool:
    """Whether the method is applied to each member of an ensemble, teacher.ensemble=separate."""
    return teacher is not None and teacher.ensemble == "separate"


def method_for_teachers(
    specs: Sequence[Any], setting: Setting, members: Sequence[TeacherNetwork] = ()
) -> Method:
    """The method for one teacher, or for several members, each with its own terms."""
    if not members:
        return make_method(specs, setting)
    settings = [replace(setting, teacher=member.inner) for member in members]
    return PerTeacher([make_method(specs, one) for one in settings])


def training_labels(train: Source) -> Tensor:
    """The labels of every training sample, for methods that keep a memory: (samples, ...)."""
    targets = targets_of(train)
    whole = isinstance(targets, Tensor) and not is_spatial(targets)
    if not isinstance(targets, Tensor) or not whole or bool((targets < 0).any()):
        raise UserError(
            f"the method needs one label tensor of all samples, which {train.name} does not have; "
            "choose another method"
        )
    return targets


def check_labels(specs: Sequence[Any], train: Source) -> None:
    """Raise UserError for a method that needs labels, or one class per image, without them."""
    first = train[0].target
    for spec in specs:
        if {"labels", "class"} & set(spec.needs) and lacks_labels(train):
            raise UserError(
                f"method {spec.name} needs the labels of every image, but {train.name} has images "
                "without labels; choose a method that needs none, such as kd"
            )
        if "masks" in spec.needs and not has_masks(first, train):
            raise UserError(
                f"method {spec.name} needs a class for each pixel, but {train.name} has no masks; "
                "choose a data set of masks (see `stillhouse datasets`), or another method"
            )
        dense = is_spatial(first) and spec.dense
        if "class" in spec.needs and not isinstance(first, int) and not dense:
            raise UserError(
                f"method {spec.name} needs one class per image, but {train.name} has other "
                "targets; choose a method that does not, such as tld, or one for several classes, "
                "such as ps"
            )


def has_masks(first: SampleTarget, train: Source) -> bool:
    """Whether the first image has a class for each pixel, or others of its data set do."""
    if first is None:
        return bool(getattr(train, "positions", False))
    return isinstance(first, Tensor) and is_spatial(first)


def lacks_labels(train: Source) -> bool:
    """Whether images have no labels, of those in memory or of the first."""
    targets = train.targets if isinstance(train, Pixels) else train[0].target
    return targets is None or (isinstance(targets, Tensor) and bool((targets < 0).any()))


def check_mixing(specs: Sequence[Any], method: Method) -> None:
    """Raise UserError for mixed images and a method that needs the labels of each image."""
    if method.needs_labels:
        raise UserError(
            f"method {specs[0].name} needs the labels of each image, but data.mix gives shares of "
            "two images; leave data.mix out, or choose a method that needs no labels"
        )


@contextmanager
def make_run(
    recipe: Recipe, folder: Path, session: Session, loaded: TeacherNetwork | None, say: Say = silent
) -> Iterator[Run]:
    """The run of a recipe in a folder; its record files are closed when the context ends."""
    hardware, engine = session.hardware, recipe.engine
    pupil = make_pupil(recipe, session, loaded, say)
    student, method = pupil.student.model, pupil.method
    if engine.channels_last and hardware.device.type != "cpu":  # there torch corrupts its heap
        pupil.to(memory_format=torch.channels_last)
    if engine.compile:
        pupil.student.compile()
    prepared = hardware.prepare(pupil)
    loader = make_training_loader(recipe, session.sources, hardware.device, method.views)
    accumulate = recipe.train.accumulate
    per_epoch = max(1, len(loader) // accumulate)
    steps, course = max(1, round(recipe.train.epochs * per_epoch)), recipe.train.schedule_epochs
    teacher = make_teacher(recipe, session, loaded, method, say)
    groups = make_groups(recipe.train, pupil, teacher)
    records = Records(folder, tensorboard=engine.tensorboard) if rank() == 0 else None
    images = recipe.data.batch * accumulate * world_size()
    with create_progress(
        steps, images=images, first_rank=rank() == 0 and not session.quiet
    ) as progress:
        try:
            yield Run(
                pupil=prepared,
                teacher=teacher,
                task=session.task,
                loader=loader,
                groups=groups,
                hardware=hardware,
                steps=steps,
                folder=folder,
                recipe_hash=load.digest(recipe),
                data=session.describe_data(),
                accumulate=accumulate,
                clip=recipe.train.clip,
                average=WeightEMA(student, recipe.train.ema_decay)
                if recipe.train.ema_decay
                else None,
                records=records,
                progress=progress,
                validation=session.val,
                trained_teacher=teacher.trained_network,
                schedule_steps=None if course is None else round(course * per_epoch),
                log_every=engine.log_every,
                evaluate_every=round(engine.evaluate_every * per_epoch),
                save_every=round(engine.save_every * per_epoch),
            )
        finally:
            if records:
                records.close()


def make_groups(training: Training, pupil: Pupil[Any], teacher: Teacher[Any]) -> dict[str, Group]:
    """The optimiser of each group of parameters: its own, or by default that of the student.

    Raises UserError for an optimiser of a group that does not exist.
    """
    parameters = pupil.groups()
    for name, trained in teacher.groups().items():
        parameters[name] = [(f"{name}.{index}", p) for index, p in enumerate(trained)]
    for name in training.groups:
        if name not in (*parameters, *OPTIONAL_GROUPS):
            raise UserError(
                f"train.groups.{name}: there is no such group of parameters, only "
                f"{', '.join(parameters)}" + did_you_mean(name, (*parameters, *OPTIONAL_GROUPS))
            )
    groups = {}
    for name, named in parameters.items():
        spec = training.groups.get(name) or group_optimiser(name, training.optimiser, pupil.method)
        optimiser = spec.build(named)
        groups[name] = Group(optimiser, training.schedule, learning_rates(optimiser))
    return groups


def group_optimiser(group: str, spec: Optimiser, method: Method) -> Optimiser:
    """The student's optimiser; for layers of the teacher, with the method's learning rate."""
    return replace(spec, lr=spec.lr * method.teacher_rate) if group == "teacher" else spec
