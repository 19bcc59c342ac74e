"""What a teacher is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol, TypeVar

from torch import nn

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
