"""What a teacher is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol, TypeVar

from torch import Tensor, nn

from stillhouse.types import Trace

B = TypeVar("B", contravariant=True)


class Teacher(Protocol[B]):
    """Anything that answers a batch with a Trace: a network, a store, an ensemble."""

    def __call__(self, batch: B) -> Trace:
        """What the teacher says about a batch."""
        ...

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        """Parameters that training may move, by the optimiser group that is to own them."""
        ...

    def fingerprint(self) -> str:
        """A hash of all that its answers depend on; the same after as before if it did not move."""
        ...

    def state(self) -> Mapping[str, Tensor]:
        """What training has moved so far, for a checkpoint."""
        ...

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from where `state` was taken."""
        ...


class Still:
    """What every teacher has that does not move."""

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        """Nothing that training may move."""
        return {}

    def state(self) -> Mapping[str, Tensor]:
        """Nothing that training has moved."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """There is nothing to put back."""
