"""Student and method as one module, with one forward from a batch to loss terms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Generic, TypeVar

from torch import nn

from stillhouse.batches import Batch, Target
from stillhouse.errors import UserError
from stillhouse.methods.base import Method
from stillhouse.methods.per_teacher import member_tap, member_trace
from stillhouse.models.taps import Tapped
from stillhouse.tasks.base import Task
from stillhouse.types import (
    LEARNING,
    STRONG,
    Clock,
    Lesson,
    Sites,
    Terms,
    Trace,
    variant,
)

T = TypeVar("T", bound=Target)
Traces = Mapping[str, Trace]  # by view; "" is the first view
FIRST_VIEW = ""


class Pupil(nn.Module, Generic[T]):
    """Student and method as one module, so that DDP and compile see all trainable tensors.

    Raises UserError for a method whose sites the task does not have.
    """

    def __init__(self, student: Tapped, method: Method, task: Task[T]) -> None:
        super().__init__()
        check_method_sites(method, task)
        self.student, self.method, self.task = student, method, task

    def forward(self, batch: Batch[T], teacher: Traces, clock: Clock) -> Terms:
        """The terms of one batch: label terms, then those of the method."""
        views = select_views(batch, self.method)
        traces = {
            name: self.student(*self.task.inputs(view, teacher[name]))
            for name, view in views.items()
        }
        assigned = self.task.assign(traces[FIRST_VIEW], batch)
        labels = self.supervise(traces, views, assigned, self.method.share(clock))
        distillation: Terms = self.method(self.lesson(traces, teacher, batch, clock, assigned))
        if both := labels.keys() & distillation.keys():
            raise UserError(
                f"the method has a term {min(both)!r}, which is the name of a label term; call it "
                "another name"
            )
        return labels | distillation

    def supervise(
        self, traces: Traces, views: Mapping[str, Batch[T]], assigned: Any, share: float
    ) -> Terms:
        """The label terms of all views, `TERM` and `TERM_strong`, their weights times `share`."""
        terms: Terms = {}
        for name, view in views.items():
            for term, value in self.task.supervise(traces[name], view, assigned).items():
                key = term if name == FIRST_VIEW else f"{term}_{name}"
                terms[key] = value._replace(weight=share * value.weight)
        return terms

    def lesson(
        self, traces: Traces, teacher: Traces, batch: Batch[T], clock: Clock, assigned: Any
    ) -> Lesson:
        """The lesson of the first view, which also has the sites of other views and teachers."""

        def make_lesson(student: Trace, teacher: Trace) -> Lesson:
            return self.task.lesson(student, teacher, batch, clock, assigned)

        trained, student = self.method.moves_teacher, traces[FIRST_VIEW]
        fixed = {name: trace.detached() if trained else trace for name, trace in teacher.items()}
        lesson = make_lesson(student, fixed[FIRST_VIEW])
        sites = Sites.of(lesson.sites)
        for name in traces.keys() - {FIRST_VIEW}:
            sites = sites.joined(make_lesson(traces[name], fixed[name]).sites, name)
        if trained:
            reverse = make_lesson(student.detached(), teacher[FIRST_VIEW])
            sites = sites.joined(reverse.sites, LEARNING)
        for number in range(self.method.members):
            for name, trace in traces.items():
                member = make_lesson(trace, member_trace(fixed[name], number))
                viewed = Sites({}).joined(member.sites, name)
                sites = sites.joined(viewed, member_tap(number))
        return replace(lesson, sites=sites)

    def groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Trainable parameters with their names, by optimiser group: `student` and the method's."""
        named = {p: name for name, p in self.named_parameters()}
        student = [p for p in self.student.parameters() if p.requires_grad]
        groups = {"student": student} | {k: list(v) for k, v in self.method.groups().items()}
        return {
            group: [(named[p], p) for p in parameters]
            for group, parameters in groups.items()
            if parameters
        }


def select_views(batch: Batch[T], method: Method) -> dict[str, Batch[T]]:
    """The views of a batch that a method needs, by name."""
    views = {FIRST_VIEW: batch}
    return views | {STRONG: batch.second_view()} if method.views > 1 else views


def check_method_sites(method: Method, task: Task[Any]) -> None:
    """Raise UserError for a method with a site that its lessons do not have."""
    available = available_sites(method, task)
    for site in method.sites:
        if site not in available:
            raise UserError(
                f"the method compares the networks at site {site!r}, but this task and method have "
                f"{', '.join(available) or 'none'}; set sites to one of them"
            )


def available_sites(method: Method, task: Task[Any]) -> list[str]:
    """The names of all sites in the lessons of a task and a method, with their variants."""
    strong = [variant(site, STRONG) for site in task.sites] if method.views > 1 else []
    trained = [variant(site, LEARNING) for site in task.sites] if method.moves_teacher else []
    members = [
        variant(site, member_tap(number))
        for number in range(method.members)
        for site in (*task.sites, *strong)
    ]
    return [*task.sites, *strong, *trained, *members]


def unwrap_pupil(pupil: nn.Module) -> Pupil[Any]:
    """The pupil inside wrappers such as DDP and compile; raises TypeError if there is none."""
    for module in unwrap(pupil):
        if isinstance(module, Pupil):
            return module
    raise TypeError(f"{type(pupil).__name__} does not wrap a Pupil")


def unwrap(module: nn.Module) -> Iterator[nn.Module]:
    """A module, then the modules inside its wrappers from the outside in."""
    while True:
        yield module
        wrapped = getattr(module, "module", None) or getattr(module, "_orig_mod", None)
        if not isinstance(wrapped, nn.Module):
            return
        module = wrapped
