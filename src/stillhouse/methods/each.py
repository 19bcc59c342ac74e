"""A method for each of several teachers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import nn

from stillhouse.methods.base import Method
from stillhouse.methods.several import merge
from stillhouse.types import Clock, Lesson, Terms

PREFIX = "members"  # of a member's taps: `members.0.layer4`


class Each(Method):
    """The terms of every teacher, named by its number, each counted as one among all of them."""

    def __init__(self, methods: Sequence[Method]) -> None:
        super().__init__()
        self.methods = nn.ModuleList(methods)
        self.student_taps = merge(method.student_taps for method in methods)
        # what a member says comes as a tap of the whole, and so do its own taps
        self.teacher_taps = merge(
            (f"{PREFIX}.{number}", *(f"{PREFIX}.{number}.{tap}" for tap in method.teacher_taps))
            for number, method in enumerate(methods)
        )
        self.needs_labels = any(method.needs_labels for method in methods)
        self.label_share = max(method.label_share for method in methods)
        self.views = max(method.views for method in methods)
        self.idle = any(method.idle for method in methods)

    def forward(self, lesson: Lesson) -> Terms:
        """The terms of each teacher, in its own lesson."""
        share = 1 / len(self.methods)
        return {
            f"{number}/{name}": term._replace(weight=share * term.weight)
            for number, (method, own) in enumerate(zip(self.methods, lesson.members, strict=True))
            for name, term in method(own).items()
        }

    def share(self, clock: Clock) -> float:
        """The largest share that one of them leaves the labels at this time."""
        return max(m.share(clock) for m in self.methods if isinstance(m, Method))

    def gauges(self, clock: Clock) -> Mapping[str, float]:
        """The gauges of every method."""
        return {
            f"{number}/{name}": value
            for number, method in enumerate(self.methods)
            if isinstance(method, Method)
            for name, value in method.gauges(clock).items()
        }

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        """The groups of all methods, those of one name together."""
        merged: dict[str, list[nn.Parameter]] = {}
        for method in self.methods:
            assert isinstance(method, Method)
            for name, parameters in method.groups().items():
                merged.setdefault(name, []).extend(parameters)
        return merged
