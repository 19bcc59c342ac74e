"""What a teacher is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

from stillhouse.batches import Batch
from stillhouse.types import STRONG, Trace

B = TypeVar("B", contravariant=True)


class Teacher(Protocol[B]):
    """Anything that gives a Trace for a batch: a network, a store, an ensemble."""

    def __call__(self, batch: B) -> Trace:
        """The outputs of the teacher for a batch."""
        ...

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        """Parameters that training may move, by optimiser group."""
        ...

    def fingerprint(self) -> str:
        """A hash of everything its outputs depend on; unchanged by training if it is frozen."""
        ...

    def state(self) -> Mapping[str, Tensor]:
        """What training has moved so far, for a checkpoint."""
        ...

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from where `state` was taken."""
        ...


class Fixed:
    """The part of a teacher that is never trained."""

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        """No parameters."""
        return {}

    def state(self) -> Mapping[str, Tensor]:
        """No state."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Nothing to restore."""


def observe(teacher: Teacher[Any], batch: Batch[Any], views: int = 1) -> dict[str, Trace]:
    """The teacher's Trace of each view of a batch: "" is the first view, then `strong`."""
    traces = {"": teacher(batch)}
    return traces | {STRONG: teacher(batch.second_view())} if views > 1 else traces
