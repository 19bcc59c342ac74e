"""The interface of a teacher: Batch -> Trace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

from stillhouse.batches import Batch
from stillhouse.models.taps import Tapped
from stillhouse.types import STRONG, Trace

B = TypeVar("B", contravariant=True)
InputBatch = TypeVar("InputBatch")
Inputs = Callable[[InputBatch], tuple[Any, ...]]  # a batch -> the arguments of the network


class Teacher(Protocol[B]):
    """Anything that gives a Trace for a batch: a network, a store, an ensemble."""

    def __call__(self, batch: B) -> Trace:
        """The outputs of the teacher for a batch."""
        ...

    @property
    def trained_network(self) -> Tapped | None:
        """The network whose layers training updates; None if the teacher is frozen."""
        ...

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        """Trainable parameters by optimiser group; empty if the teacher is frozen."""
        ...

    def fingerprint(self) -> str:
        """A hash of everything its outputs depend on; unchanged by training if it is frozen."""
        ...

    def state(self) -> Mapping[str, Tensor]:
        """The parameters that training updates, for a checkpoint."""
        ...

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Load parameters that `state` returned."""
        ...

    def initial_weights(self) -> AbstractContextManager[object]:
        """A context in which the network has the weights from before training."""
        ...


class Fixed:
    """The trainable part of a teacher that is never trained: empty."""

    @property
    def trained_network(self) -> None:
        """None: no layer is trained."""
        return

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        """No parameters."""
        return {}

    def state(self) -> Mapping[str, Tensor]:
        """An empty dict."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Do nothing."""

    def initial_weights(self) -> AbstractContextManager[object]:
        """A context that changes nothing."""
        return nullcontext()


def observe(teacher: Teacher[Any], batch: Batch[Any], views: int = 1) -> dict[str, Trace]:
    """The teacher's Trace of each view of a batch: "" is the first view, then `strong`."""
    traces = {"": teacher(batch)}
    return traces | {STRONG: teacher(batch.second_view())} if views > 1 else traces
