"""Small networks side by side, and what they say to a method of theirs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from stillhouse.methods.base import Method
from stillhouse.methods.setting import Setting
from stillhouse.models.aliases import resolve_paths
from stillhouse.models.small import small_resnet
from stillhouse.models.taps import Tapped
from stillhouse.types import Clock, Lesson, Term, Trace
from tiny import CLOCK

SIDE = 16


def images(n: int = 4, side: int = SIDE) -> Tensor:
    return torch.randn(n, 3, side, side)


def setting(student: str | nn.Module = "small", teacher: str | nn.Module = "medium") -> Setting:
    """Two networks, of the package's own sizes by name."""
    ours, theirs = (
        small_resnet(network, 5) if isinstance(network, str) else network
        for network in (student, teacher)
    )
    return Setting(ours, theirs.eval(), images())


def hear(network: nn.Module, taps: tuple[str, ...], shown: Tensor) -> Trace:
    """A forward that notes the taps of one method."""
    tapped = Tapped(
        network, resolve_paths(network, taps, shown)
    )  # nothing here is written in place
    trace: Trace = tapped(shown)
    tapped.close()
    return trace


def heard(
    setting: Setting,
    method: Method,
    shown: Tensor | None = None,
    clock: Clock = CLOCK,
    weight: Tensor | None = None,
) -> Lesson:
    """What both networks say to a method; the teacher with a gradient that no method may use."""
    shown = images() if shown is None else shown
    student = hear(setting.student, method.student_taps, shown)
    teacher = hear(setting.teacher, method.teacher_taps, shown)
    return Lesson(student, teacher, {}, clock, weight=weight)


def changed(lesson: Lesson, change: Mapping[str, Tensor]) -> Lesson:
    """The lesson with other taps of the student."""
    taps = {**lesson.student.taps, **change}
    return replace(lesson, student=replace(lesson.student, taps=taps))


def loss(terms: Mapping[str, Term]) -> Tensor:
    """The sum that a step goes down."""
    return torch.stack([term.weight * term.mean() for term in terms.values()]).sum()
