"""Methods that begin with a phase of its own kind."""

from __future__ import annotations

from stillhouse.spec import require
from stillhouse.types import Clock


def opening(length: float, clock: Clock) -> bool:
    """Whether the first phase still lasts: `length` epochs, or below 1 that share of the run."""
    if length < 1:
        return clock.progress < length
    return clock.step < length * clock.steps_per_epoch


def check_length(length: float) -> None:
    """Refuse a negative length of the first phase."""
    require(length >= 0, "init", "a number of epochs, or a share of the run below 1", length)
