"""Letting a faster implementation stand in for a reference function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import update_wrapper
from typing import Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
_reference_only = ContextVar("reference_only", default=False)


class Accelerated(Generic[P, R]):
    """A function with a readable reference and stand-ins, which are asked in order at each call."""

    def __init__(self, reference: Callable[P, R]) -> None:
        update_wrapper(self, reference)
        self.reference = reference
        self.stand_ins: list[tuple[Callable[P, bool], Callable[P, R]]] = []

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.pick(*args, **kwargs)(*args, **kwargs)

    def pick(self, *args: P.args, **kwargs: P.kwargs) -> Callable[P, R]:
        """The implementation that these arguments would get."""
        if not _reference_only.get():
            for fits, fast in self.stand_ins:
                if fits(*args, **kwargs):
                    return fast
        return self.reference

    def stand_in(self, fits: Callable[P, bool]) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Enter the decorated function as a stand-in wherever `fits` allows it."""

        def enter(fast: Callable[P, R]) -> Callable[P, R]:
            self.stand_ins.append((fits, fast))
            return fast

        return enter


@contextmanager
def reference_only() -> Iterator[None]:
    """Inside, every accelerated function is its reference."""
    token = _reference_only.set(True)
    try:
        yield
    finally:
        _reference_only.reset(token)
