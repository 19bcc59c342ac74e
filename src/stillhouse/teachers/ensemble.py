"""Several teachers that teach apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Generic, TypeVar

from stillhouse.teachers.base import Still
from stillhouse.teachers.frozen import Frozen
from stillhouse.types import Trace

B = TypeVar("B")


class Panel(Still, Generic[B]):
    """An ensemble whose Trace holds what each member said, beside their mean.

    The network inside is asked with a tap for each member, `members.0`, and those of the methods,
    `members.0.layer4`.
    """

    def __init__(self, ensemble: Frozen[B], count: int, prefix: str = "members") -> None:
        self.ensemble, self.count, self.prefix = ensemble, count, prefix

    def __call__(self, batch: B) -> Trace:
        """The mean of what the members say, and what each said."""
        trace = self.ensemble(batch)
        return replace(trace, members=tuple(self.member(trace, i) for i in range(self.count)))

    def member(self, trace: Trace, number: int) -> Trace:
        """What one member said, its taps by the names that its method uses."""
        own = f"{self.prefix}.{number}"
        taps = {
            name.removeprefix(f"{own}."): tap
            for name, tap in trace.taps.items()
            if name.startswith(f"{own}.")
        }
        return Trace(trace.taps[own], taps)

    def fingerprint(self) -> str:
        """The hash of all members."""
        return self.ensemble.fingerprint()
