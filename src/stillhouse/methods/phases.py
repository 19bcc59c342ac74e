"""The first phase of methods that train in two phases."""

from __future__ import annotations

from stillhouse.spec import require
from stillhouse.types import Clock


def in_first_phase(length: float, clock: Clock) -> bool:
    """Whether a step is in the first phase: `length` epochs, or below 1 a fraction of the run."""
    if length < 1:
        return clock.progress < length
    return clock.step < length * clock.steps_per_epoch


def check_length(length: float) -> None:
    """Refuse a negative length of the first phase."""
    require(length >= 0, "init", "a number of epochs, or a share of the run below 1", length)
