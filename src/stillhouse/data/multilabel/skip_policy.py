"""What to do with images and labels that have a problem: keep, skip or fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stillhouse.errors import UserError, did_you_mean

BoolArray = npt.NDArray[np.bool_]

CHOICES = {
    "unlabelled": ("keep", "skip", "fail"),
    "unknown": ("skip", "fail"),
    "missing": ("skip", "fail"),
    "broken": ("skip", "fail"),
}


@dataclass(frozen=True)
class SkipPolicy:
    """What to do with images without labels, missing or broken files, and unknown labels."""

    unlabelled: str = "keep"
    unknown: str = "fail"
    missing: str = "fail"
    broken: str = "fail"

    def __post_init__(self) -> None:
        for option, known in CHOICES.items():
            check_choice(option, getattr(self, option), known)


def check_choice(option: str, value: object, known: Sequence[object]) -> None:
    """Raise a UserError unless an option has one of the known values, of the same type."""
    if value in known and type(value) is type(known[0]):
        return
    *others, last = (repr(choice) for choice in known)
    hint = did_you_mean(str(value), map(str, known))
    raise UserError(f"`{option}` must be {', '.join(others)} or {last}, got {value!r}{hint}")


def check_bool(option: str, value: object) -> None:
    """Raise a UserError unless an option is true or false."""
    if not isinstance(value, bool):
        raise UserError(f"`{option}` must be true or false, got {value!r}")


class Problem(NamedTuple):
    """Something that can be wrong with an image: how a message counts it, and the remedy."""

    option: str  # of the policy
    text: str  # "images have no labels"
    remedy: str


def apply_policy(
    name: str,
    root: Path,
    paths: Sequence[str],
    affected: BoolArray,
    problem: Problem,
    policy: SkipPolicy,
) -> tuple[BoolArray, tuple[str, ...]]:
    """Which images are kept, and a note on the others: (N,) paths, (N,) -> (N,), notes.

    Raises a UserError where the policy is to fail.
    """
    choice = getattr(policy, problem.option)
    count = int(affected.sum())
    if not count or choice == "keep":
        return np.ones(len(affected), dtype=bool), ()
    text = f"{name}: {count} of {len(affected)} {problem.text}"
    first = f"the first is {root / paths[int(affected.argmax())]}"
    if choice == "skip":
        return ~affected, (f"{text} and are skipped; {first}",)
    raise UserError(f"{text}, {first}; {problem.remedy}, or skip them with {problem.option}='skip'")
