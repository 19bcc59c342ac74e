"""Replacing a reference function with a faster implementation where one applies."""

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
    """A function with a readable reference, and stand-ins that are tried in order at each call."""

    def __init__(self, reference: Callable[P, R]) -> None:
        update_wrapper(self, reference)
        self.reference = reference
        self.stand_ins: list[tuple[Callable[P, bool], Callable[P, R]]] = []

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.pick(*args, **kwargs)(*args, **kwargs)

    def pick(self, *args: P.args, **kwargs: P.kwargs) -> Callable[P, R]:
        """The implementation that is called for these arguments."""
        if not _reference_only.get():
            for supports, fast in self.stand_ins:
                if supports(*args, **kwargs):
                    return fast
        return self.reference

    def stand_in(self, supports: Callable[P, bool]) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Register the decorated function as a stand-in for arguments where `supports` is true."""

        def register(fast: Callable[P, R]) -> Callable[P, R]:
            self.stand_ins.append((supports, fast))
            return fast

        return register


@contextmanager
def reference_only() -> Iterator[None]:
    """Within this context every accelerated function runs its reference."""
    token = _reference_only.set(True)
    try:
        yield
    finally:
        _reference_only.reset(token)
