"""Many small cases in one test, which names every case that fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
SHOWN = 40


def check_each(check: Callable[[T], object], cases: Iterable[tuple[str, T]]) -> None:
    """Check every case, then fail with the names of those that it does not hold for."""
    failures: dict[str, Exception] = {}
    count = 0
    for name, case in cases:
        count += 1
        try:
            check(case)
        except Exception as error:
            failures[name] = error
    assert count, "there are no cases"
    if failures:
        lines = [f"{name}: {sentence(error)}" for name, error in failures.items()]
        more = [f"... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
        told = "\n".join([*lines[:SHOWN], *more])
        first = next(iter(failures.values()))
        raise AssertionError(f"{len(failures)} of {count} cases fail:\n{told}") from first


def sentence(error: Exception) -> str:
    """The first line of an error, after its kind."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
