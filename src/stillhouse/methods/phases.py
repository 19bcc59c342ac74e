"""Methods that begin with a phase of its own kind."""

from __future__ import annotations

from stillhouse.types import Clock


def opening(length: float, clock: Clock) -> bool:
    """Whether the first phase still lasts: `length` epochs, or below 1 that share of the run."""
    if length < 1:
        return clock.progress < length
    return clock.step < length * clock.steps_per_epoch


def check_length(length: float) -> None:
    """Refuse a phase that ends before it begins."""
    if length < 0:
        raise ValueError(f"init is a number of epochs or a share of the run, and is {length}")
