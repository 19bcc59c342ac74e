"""Several methods at once, and the method without terms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn

from stillhouse.methods.base import Method
from stillhouse.types import Clock, Lesson, Terms


class NoTerms(Method):
    """The method of the control, which is trained on labels only."""

    def forward(self, lesson: Lesson) -> Terms:
        """An empty dict."""
        return {}


class Combined(Method):
    """The terms of several methods, each as `METHOD/TERM`.

    The label terms have the largest weight that one of the methods gives them.
    """

    def __init__(self, methods: Mapping[str, Method]) -> None:
        super().__init__()
        self.methods = nn.ModuleDict(methods)
        self.student_taps = unique_names(m.student_taps for m in methods.values())
        self.teacher_taps = unique_names(m.teacher_taps for m in methods.values())
        self.sites = unique_names(m.sites for m in methods.values())
        self.label_share = max(m.label_share for m in methods.values())
        self.needs_labels = any(m.needs_labels for m in methods.values())
        self.views = max(m.views for m in methods.values())
        self.moves_teacher = any(m.moves_teacher for m in methods.values())
        moving = [m for m in methods.values() if m.moves_teacher]
        if moving:
            self.teacher_layers = moving[0].teacher_layers
            self.teacher_rate = moving[0].teacher_rate
        self.unused_parameters = any(m.unused_parameters for m in methods.values())

    def forward(self, lesson: Lesson) -> Terms:
        """The terms of all methods."""
        return {
            f"{name}/{term}": value
            for name, method in self.methods.items()
            for term, value in method(lesson).items()
        }

    def share(self, clock: Clock) -> float:
        """The largest label weight of all methods at this step."""
        return max(m.share(clock) for m in self.methods.values() if isinstance(m, Method))

    def gauges(self, clock: Clock) -> Mapping[str, float]:
        """The gauges of all methods, each as `METHOD/GAUGE`."""
        return {
            f"{name}/{gauge}": value
            for name, method in self.methods.items()
            if isinstance(method, Method)
            for gauge, value in method.gauges(clock).items()
        }

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        """The parameter groups of all methods; groups of the same name are joined."""
        merged: dict[str, list[nn.Parameter]] = {}
        for method in self.methods.values():
            assert isinstance(method, Method)
            for name, parameters in method.groups().items():
                merged.setdefault(name, []).extend(parameters)
        return merged


def unique_names(groups: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """The names of all groups without repetition, in the order of their first occurrence."""
    return tuple(dict.fromkeys(name for group in groups for name in group))
