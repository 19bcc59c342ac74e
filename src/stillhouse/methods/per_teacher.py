"""A method for each of several teachers."""

from __future__ import annotations

from collections.abc import Sequence

from stillhouse.methods.base import Method
from stillhouse.methods.combined import Combined, merge
from stillhouse.types import Lesson, Terms

PREFIX = "members"  # of a member's taps: `members.0.layer4`


class Each(Combined):
    """The terms of every teacher, named by its number, each counted as one among all of them."""

    def __init__(self, methods: Sequence[Method]) -> None:
        super().__init__({str(number): method for number, method in enumerate(methods)})
        # what a member says comes as a tap of the whole, and so do its own taps
        self.teacher_taps = merge(
            (f"{PREFIX}.{number}", *(f"{PREFIX}.{number}.{tap}" for tap in method.teacher_taps))
            for number, method in enumerate(methods)
        )

    def forward(self, lesson: Lesson) -> Terms:
        """The terms of each teacher, in its own lesson."""
        share = 1 / len(self.methods)
        pairs = zip(self.methods.items(), lesson.members, strict=True)
        return {
            f"{number}/{name}": term._replace(weight=share * term.weight)
            for (number, method), own in pairs
            for name, term in method(own).items()
        }
