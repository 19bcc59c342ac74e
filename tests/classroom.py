"""A small student and teacher with any method of the catalogue between them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from stillhouse.batches import Batch
from stillhouse.engine.pupil import Pupil, select_views
from stillhouse.methods.base import Method
from stillhouse.methods.labelwise import LabelwiseSpec
from stillhouse.methods.setting import ComposedMethod, Setting
from stillhouse.models.labelwise import EMBEDDINGS, LabelwiseHead, labelwise
from stillhouse.models.last_layers import last_layers
from stillhouse.models.small import small_resnet
from stillhouse.models.taps import Tapped
from stillhouse.tasks.classification import Classification
from stillhouse.teachers.base import observe
from stillhouse.teachers.learner import Learner
from stillhouse.types import Clock, Lesson, Terms, Trace

CLASSES, SAMPLES, SIZE = 4, 24, (16, 32)
LABELS = torch.arange(SAMPLES) % CLASSES
# The same samples with several classes each: of any six in a row each class has three or more.
SEVERAL = torch.tensor(
    [[1, 1, 0, 1], [1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 1], [1, 1, 1, 0], [1, 1, 1, 1]]
).repeat(SAMPLES // 6, 1)
CLOCKS = {
    name: Clock(step, 40, 10) for name, step in {"first": 0, "middle": 20, "last": 39}.items()
}
MIDDLE = CLOCKS["middle"]
# What draws random numbers of its own for each image, without the numbers; and less work.
CALM: Mapping[str, Mapping[str, Any]] = {"mgd": {"masked": 0.0}, "crd": {"negatives": 20}}


def batch(n: int = 6, seed: int = 1, dtype: torch.dtype = torch.float32) -> Batch:
    """Images of two views, sample 5, 4, ... of the training set."""
    generator = torch.Generator().manual_seed(seed)
    images, strong = torch.randn(2, n, 1, *SIZE, generator=generator).to(dtype)
    keys = torch.arange(n).flip(0) % SAMPLES
    return Batch(images, LABELS[keys], keys, torch.zeros_like(keys), strong)


def rows(whole: Batch, kept: Any) -> Batch:
    return whole.rows(kept if isinstance(kept, slice) else torch.tensor(kept))


@dataclass(frozen=True)
class Weighed(Classification):
    """Classification whose images count differently, and show several classes to who looks."""

    rows: Tensor | None = field(default=None, kw_only=True)  # (samples,)

    def target(self, student: Trace, batch: Batch) -> Tensor:
        """Several classes an image for a method that reads an embedding of each."""
        if EMBEDDINGS in student.taps:
            return SEVERAL[batch.keys].to(student.out.dtype)
        return super().target(student, batch)

    def lesson(self, student: Trace, teacher: Trace, batch: Batch, *rest: Any) -> Lesson:
        lesson = super().lesson(student, teacher, batch, *rest)
        if self.rows is None:
            return lesson
        weight = self.rows[batch.keys].to(student.out.dtype)
        sites = {name: replace(site, weight=weight) for name, site in lesson.sites.items()}
        return replace(lesson, weight=weight, sites=sites)


@dataclass
class Classroom:
    """A pupil, and a teacher that could get a gradient if a method let it."""

    pupil: Pupil[Any]
    teacher: Tapped
    learner: Learner[Any] | None

    @property
    def method(self) -> Method:
        return self.pupil.method

    def asked(self, batch: Batch) -> dict[str, Trace]:
        """What the teacher says of each view."""
        teacher: Any = self.learner or (lambda view: self.teacher(view.images))
        return observe(teacher, batch, self.method.views)

    def learn(self, batch: Batch, clock: Clock = MIDDLE) -> Terms:
        terms: Terms = self.pupil(batch, self.asked(batch), clock)
        return terms

    def lesson(self, batch: Batch, clock: Clock = MIDDLE) -> Lesson:
        """What the method is given."""
        views = select_views(batch, self.method)
        traces = {name: self.pupil.student(view.images) for name, view in views.items()}
        return self.pupil.lesson(traces, self.asked(batch), batch, clock, None)

    def teach(self, batch: Batch, clock: Clock = MIDDLE) -> Terms:
        """The terms of the method alone."""
        terms: Terms = self.method(self.lesson(batch, clock))
        return terms

    def doubled(self) -> Classroom:
        """In double precision."""
        self.pupil.double()
        if self.learner is None:
            self.teacher = copy.deepcopy(self.teacher)  # which other classrooms share
        self.teacher.double()
        return self

    def still(self) -> Classroom:
        """With BatchNorms that read no batch, so that each image has its own answer."""
        for part in self.pupil.modules():
            if isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d):
                part.eval()
        return self


def calm(spec: type[ComposedMethod], **options: Any) -> ComposedMethod:
    """The method with its defaults, but for what its draws would hide."""
    return spec(**{**CALM.get(str(spec.name), {}), **options})  # type: ignore[attr-defined]


def enrol(spec: ComposedMethod, weight: Tensor | None = None, seed: int = 0) -> Classroom:
    """The same classroom for the same seed; the teacher is the same for every seed.

    A teacher that no method moves is one object for all of them.
    """
    made = furnished(spec, seed)
    shared = {} if made.method.moves_teacher else {id(made.teacher): made.teacher}
    classroom = copy.deepcopy(made, shared)
    classroom.pupil.task = Weighed(CLASSES, rows=weight)
    return classroom


@cache
def furnished(spec: ComposedMethod, seed: int) -> Classroom:
    setting = networks(seed, spec)
    setting = replace(setting, student=spec.reshape(setting))
    return seated(spec.build(setting), setting)


def networks(seed: int, spec: ComposedMethod) -> Setting:
    """Two networks, with label-wise heads where the method wants them."""
    torch.manual_seed(99)
    teacher: nn.Module = small_resnet("medium", CLASSES, channels=1)
    torch.manual_seed(seed)
    student: nn.Module = small_resnet("small", CLASSES, channels=1)
    example = torch.randn(2, 1, *SIZE)
    if isinstance(spec, LabelwiseSpec):
        student = labelwise(student, CLASSES, example, LabelwiseHead(8, 2, 16, dropout=0.0))
        torch.manual_seed(99)
        teacher = labelwise(teacher, CLASSES, example, LabelwiseHead(12, 2, 16, dropout=0.0))
    return Setting(student, teacher, example, lambda: LABELS)


def seated(method: Method, setting: Setting) -> Classroom:
    task, example = Weighed(CLASSES), (setting.example,)
    pupil = Pupil(Tapped(setting.student, method.student_taps, example), method, task)
    teacher = Tapped(setting.teacher.eval(), method.teacher_taps, example)
    if not method.moves_teacher:
        return Classroom(pupil, teacher, None)
    layers = last_layers(setting.teacher, setting.example)
    return Classroom(
        pupil, teacher, Learner(setting.teacher, task.inputs, layers, method.teacher_taps, example)
    )
