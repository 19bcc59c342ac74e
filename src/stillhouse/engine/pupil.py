"""Everything that is trained, behind one forward."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Generic, TypeVar

from torch import nn

from stillhouse.batches import Batch, Target
from stillhouse.errors import UserError
from stillhouse.methods.base import Method
from stillhouse.methods.per_teacher import tap_of, trace_of
from stillhouse.models.taps import Tapped
from stillhouse.tasks.base import Task
from stillhouse.types import (
    LEARNING,
    STRONG,
    Clock,
    Lesson,
    Site,
    Terms,
    Trace,
    variant,
)

T = TypeVar("T", bound=Target)
Traces = Mapping[str, Trace]  # by view: "" is the first one
FIRST = ""


class Pupil(nn.Module, Generic[T]):
    """Student and method as one module, so that DDP and compile see every trainable tensor."""

    def __init__(self, student: Tapped, method: Method, task: Task[T]) -> None:
        super().__init__()
        check_sites(method, task)
        self.student, self.method, self.task = student, method, task

    def forward(self, batch: Batch[T], teacher: Traces, clock: Clock) -> Terms:
        """The terms of one batch: those of the labels, then those of the method."""
        views = views_of(batch, self.method)
        traces = {
            name: self.student(*self.task.inputs(view, teacher[name]))
            for name, view in views.items()
        }
        assigned = self.task.assign(traces[FIRST], batch)
        labels = self.supervise(traces, views, assigned, self.method.share(clock))
        taught: Terms = self.method(self.lesson(traces, teacher, batch, clock, assigned))
        return labels | taught

    def supervise(
        self, traces: Traces, views: Mapping[str, Batch[T]], assigned: Any, share: float
    ) -> Terms:
        """The label terms of every view, weighted by the share that the method leaves them."""
        terms: Terms = {}
        for name, view in views.items():
            for term, value in self.task.supervise(traces[name], view, assigned).items():
                key = term if name == FIRST else f"{term}_{name}"
                terms[key] = value._replace(weight=share * value.weight)
        return terms

    def lesson(
        self, traces: Traces, teacher: Traces, batch: Batch[T], clock: Clock, assigned: Any
    ) -> Lesson:
        """The lesson of the first view, with the sites of every other pair of outputs."""

        def made(student: Trace, other: Trace) -> Lesson:
            return self.task.lesson(student, other, batch, clock, assigned)

        moves, student = self.method.moves_teacher, traces[FIRST]
        fixed = {name: trace.detached() if moves else trace for name, trace in teacher.items()}
        lesson = made(student, fixed[FIRST])
        sites: dict[str, Site] = dict(lesson.sites)
        for name in traces.keys() - {FIRST}:
            sites |= renamed(made(traces[name], fixed[name]).sites, name)
        if moves:
            sites |= renamed(made(student.detached(), teacher[FIRST]).sites, LEARNING)
        for number in range(self.method.members):
            for name, trace in traces.items():
                member = made(trace, trace_of(fixed[name], number))
                sites |= renamed(renamed(member.sites, name), tap_of(number))
        return replace(lesson, sites=sites)

    def groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Trainable parameters by optimiser group: the student's, and those of the method."""
        named = {p: name for name, p in self.named_parameters()}
        student = [p for p in self.student.parameters() if p.requires_grad]
        groups = {"student": student} | {k: list(v) for k, v in self.method.groups().items()}
        return {
            group: [(named[p], p) for p in parameters]
            for group, parameters in groups.items()
            if parameters
        }


def views_of(batch: Batch[T], method: Method) -> dict[str, Batch[T]]:
    """The views of a batch that a method needs, by name."""
    views = {FIRST: batch}
    return views | {STRONG: batch.second_view()} if method.views > 1 else views


def renamed(sites: Mapping[str, Site], name: str) -> dict[str, Site]:
    """Sites as a variant: `class@strong`; those of the first view keep their names."""
    return {variant(site, name) if name else site: value for site, value in sites.items()}


def check_sites(method: Method, task: Task[Any]) -> None:
    """Refuse a method that names a site which no lesson of it and the task will have."""
    known = available_sites(method, task)
    for site in method.sites:
        if site not in known:
            raise UserError(
                f"the method compares the networks at site {site!r}, but this task and method have "
                f"{', '.join(known) or 'none'}; set sites to one of them"
            )


def available_sites(method: Method, task: Task[Any]) -> list[str]:
    """The sites of every lesson of a task and a method, with their variants."""
    strong = [variant(site, STRONG) for site in task.sites] if method.views > 1 else []
    moved = [variant(site, LEARNING) for site in task.sites] if method.moves_teacher else []
    members = [
        variant(site, tap_of(number))
        for number in range(method.members)
        for site in (*task.sites, *strong)
    ]
    return [*task.sites, *strong, *moved, *members]


def unwrap_pupil(pupil: nn.Module) -> Pupil[Any]:
    """The pupil inside of DDP and compile."""
    for inside in unwrap(pupil):
        if isinstance(inside, Pupil):
            return inside
    raise TypeError(f"{type(pupil).__name__} contains no pupil")


def unwrap(module: nn.Module) -> Iterator[nn.Module]:
    """A module, and each module that it only wraps."""
    while True:
        yield module
        inside = getattr(module, "module", None) or getattr(module, "_orig_mod", None)
        if not isinstance(inside, nn.Module):
            return
        module = inside
