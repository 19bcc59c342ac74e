"""A teacher that is asked about both views of each image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Generic, TypeVar

from torch import Tensor, nn

from stillhouse.teachers.base import Teacher
from stillhouse.types import Trace

B = TypeVar("B")


class BothViews(Generic[B]):
    """Another teacher, asked twice; `second` gives the batch in its stronger view."""

    def __init__(self, teacher: Teacher[B], second: Callable[[B], B]) -> None:
        self.teacher, self.second = teacher, second

    def __call__(self, batch: B) -> Trace:
        """What it says about the batch, with what it says about the second view."""
        return replace(self.teacher(batch), strong=self.teacher(self.second(batch)))

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        """What training may move of the teacher inside."""
        return self.teacher.groups()

    def fingerprint(self) -> str:
        """The hash of the teacher inside."""
        return self.teacher.fingerprint()

    def state(self) -> Mapping[str, Tensor]:
        """What training has moved so far of the teacher inside."""
        return self.teacher.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from where `state` was taken."""
        self.teacher.restore(state)
