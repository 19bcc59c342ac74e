"""The plan of a run as text, which is printed before the run trains anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stillhouse.build.data import Sources
from stillhouse.build.networks import example_of, make_network
from stillhouse.build.session import Session
from stillhouse.build.store import view_count
from stillhouse.models import cost
from stillhouse.recipes.schema import Network, Recipe, Training
from stillhouse.runs.checks import RunChecks, contract_notes
from stillhouse.runs.first_step import FirstStep
from stillhouse.teachers.store.fill import format_estimate
from stillhouse.teachers.store.store import format_size

NAMED = 5  # classes that the plan names


def describe_plan(recipe: Recipe, session: Session, checked: RunChecks, folder: Path) -> list[str]:
    """The data, networks, method, schedule, memory and time of a run, a line each."""
    rows = [
        ("data", describe_data(recipe, session.sources)),
        *teacher_rows(recipe, session, checked),
        ("student", describe_size(checked.student.student, recipe.student.name, session)),
        *head_rows(recipe.student, session, checked.student.student),
        ("method", describe_method(recipe, checked.student)),
        ("training", describe_training(recipe.train, recipe.data.batch, checked.student.steps)),
        ("memory", f"about {format_size(largest_memory(checked))} on {session.hardware.device}"),
        ("time", describe_time(recipe, session, checked)),
        ("folder", str(folder)),
    ]
    teacher = checked.opened.network if checked.opened and checked.opened.trained else None
    rows += [("note", note) for note in contract_notes(recipe, session, teacher)]
    return [f"{name:<9} {text}" for name, text in rows]


def describe_size(network: nn.Module, name: str, session: Session) -> str:
    """The parameters and operations of a network, for messages."""
    device = next((p.device for p in network.parameters()), session.hardware.device)
    image = example_of(session.sources)[:1].to(device)
    # two, because group norms refuse a single value
    work = cost.flops(network, torch.cat([image, image])) / 2
    size = f"{cost.parameters(network):,} parameters"
    return f"{name}: {size}, {work / 1e6:,.1f} MFLOPs per image"


def describe_data(recipe: Recipe, sources: Sources) -> str:
    """The data set, its classes, the sizes of its splits and of its images."""
    place = f"{recipe.data.name} in {recipe.data.path}" if recipe.data.path else recipe.data.name
    names = ", ".join(sources.classes[:NAMED])
    names += ", …" if len(sources.classes) > NAMED else ""
    sizes = ", ".join(f"{len(source):,} {name}" for name, source in sources.by_name.items())
    if sources.test is None:
        sizes += ", no test"
    shape = " x ".join(map(str, (sources.channels, *sources.size)))
    count = len(sources.classes)
    return (
        f"{place}: {recipe.task.name}, {count} class{'es' if count != 1 else ''} ({names}); "
        f"{sizes} images of {shape}"
    )


def teacher_rows(recipe: Recipe, session: Session, checked: RunChecks) -> Iterator[tuple[str, str]]:
    """The size of the teacher, and how its untrained members are trained first."""
    if checked.opened is None or recipe.teacher is None:
        yield "teacher", "none: the student is trained on labels only"
        return
    yield "teacher", describe_size(checked.opened.network.inner, recipe.teacher.name, session)
    for training, step in checked.teachers:
        how = describe_training(training.train, training.data.batch, step.steps)
        yield "teacher", f"{training.student.name} is trained first: {how}"


def head_rows(spec: Network, session: Session, network: nn.Module) -> Iterator[tuple[str, str]]:
    """How many parameters the student has with its head and with its own classifier."""
    if spec.head is None:
        return
    plain = make_network(replace(spec, head=None, pretrained=None), session.sources)
    yield (
        "head",
        f"{spec.head.kind}: {cost.parameters(network):,} parameters, where the student with its "
        f"own classifier has {cost.parameters(plain):,}",
    )


def describe_method(recipe: Recipe, step: FirstStep) -> str:
    """The methods with the options that are numbers or places, and the control."""
    texts = [describe_options(method) for method in recipe.method]
    text = " + ".join(texts)
    if step.method_parameters:
        text += f"; {step.method_parameters:,} parameters of its own"
    return f"{text}; with a control" if recipe.control and recipe.distils else text


def describe_options(method: Any) -> str:
    """The name of a method with its numbers, its sites, and what differs from its defaults."""
    shown = []
    for option in fields(method):
        value = getattr(method, option.name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        told = number or option.name == "sites" or value != option.default
        if option.name != "name" and told and value not in (None, False, 0, ()):
            shown.append(f"{option.name.replace('_', ' ')} {format_option(value)}")
    return f"{method.name} ({', '.join(shown)})" if shown else str(method.name)


def format_option(value: Any) -> str:
    """The value of an option, short."""
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(format_option, value)) + "]"
    if is_dataclass(value) and hasattr(value, "name"):
        return describe_options(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def describe_training(train: Training, batch: int, steps: int) -> str:
    """The steps, the optimiser and the schedule of a training."""
    epochs = f"{train.epochs:g} epoch{'s' if train.epochs != 1 else ''}"
    decay, warmup = train.optimiser.weight_decay, train.schedule.warmup
    how = f"{train.optimiser.kind} with learning rate {train.optimiser.lr:g}"
    how += f" and weight decay {decay:g}" if decay else ""
    how += f", {train.schedule.kind} schedule"
    how += f" after {warmup:g} epochs of warmup" if warmup else ""
    return f"{epochs}, {steps:,} steps of {batch * train.accumulate} images; {how}"


def largest_memory(checked: RunChecks) -> int:
    """The largest of the trainings of a run, in bytes."""
    return max(step.memory for step in steps_of(checked))


def steps_of(checked: RunChecks) -> Sequence[FirstStep]:
    """The first steps of all trainings of a run, that of the student first."""
    return (checked.student, *(step for _, step in checked.teachers))


def describe_time(recipe: Recipe, session: Session, checked: RunChecks) -> str:
    """The time of all trainings of a run, by their first steps."""
    student, teacher = checked.student, recipe.teacher
    own = student.steps * student.seconds
    taught = student.steps * student.teacher_seconds
    if teacher is not None and (teacher.remember or teacher.store):  # then each view once
        views = view_count(recipe.data) * len(session.sources.train) / recipe.data.batch
        taught = min(taught, views * student.teacher_seconds)
    before = sum(step.steps * step.seconds for _, step in checked.teachers)
    control = own if recipe.control and recipe.distils else 0
    total = format_estimate(own + taught + before + control)
    step = student.seconds + student.teacher_seconds
    return f"about {total} without evaluation; a step takes about {step:.2g} s"
