"""Several methods at once, and none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn

from stillhouse.methods.base import Method
from stillhouse.types import Clock, Lesson, Terms


class NoTerms(Method):
    """No terms: the control."""

    def forward(self, lesson: Lesson) -> Terms:
        """No terms at all."""
        return {}


class Combined(Method):
    """The terms of all, each under the name of its method.

    Labels count as much as the method that leaves them the most share says.
    """

    def __init__(self, methods: Mapping[str, Method]) -> None:
        super().__init__()
        self.methods = nn.ModuleDict(methods)
        self.student_taps = merge(m.student_taps for m in methods.values())
        self.teacher_taps = merge(m.teacher_taps for m in methods.values())
        self.sites = merge(m.sites for m in methods.values())
        self.label_share = max(m.label_share for m in methods.values())
        self.needs_labels = any(m.needs_labels for m in methods.values())
        self.views = max(m.views for m in methods.values())
        self.moves_teacher = any(m.moves_teacher for m in methods.values())
        moving = [m for m in methods.values() if m.moves_teacher]
        if moving:
            self.teacher_layers = moving[0].teacher_layers
            self.teacher_rate = moving[0].teacher_rate
        self.idle = any(m.idle for m in methods.values())

    def forward(self, lesson: Lesson) -> Terms:
        """The terms of every method."""
        return {
            f"{name}/{term}": value
            for name, method in self.methods.items()
            for term, value in method(lesson).items()
        }

    def share(self, clock: Clock) -> float:
        """The largest share that one of them leaves the labels at this time."""
        return max(m.share(clock) for m in self.methods.values() if isinstance(m, Method))

    def gauges(self, clock: Clock) -> Mapping[str, float]:
        """The gauges of every method."""
        return {
            f"{name}/{gauge}": value
            for name, method in self.methods.items()
            if isinstance(method, Method)
            for gauge, value in method.gauges(clock).items()
        }

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        """The groups of all methods, those of one name together."""
        merged: dict[str, list[nn.Parameter]] = {}
        for method in self.methods.values():
            assert isinstance(method, Method)
            for name, parameters in method.groups().items():
                merged.setdefault(name, []).extend(parameters)
        return merged


def merge(taps: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Every tap once, in the order of first mention."""
    return tuple(dict.fromkeys(tap for group in taps for tap in group))
