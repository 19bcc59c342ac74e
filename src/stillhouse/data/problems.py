"""What readers do about problems of their files: check options, count, skip, mend or fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stillhouse.errors import UserError, did_you_mean, quote

BoolArray = npt.NDArray[np.bool_]

_IGNORED = "read with these pixels ignored"
_DONE = {"skip": "skipped", "clip": "clipped", "swap": "swapped", "ignore": _IGNORED}


class MissingSplit(UserError):
    """A data set does not have a split; val and test can be held out of train."""


def check_choice(option: str, value: object, known: Sequence[object]) -> None:
    """Raise a UserError unless an option has one of the known values, of the same type."""
    if value in known and type(value) is type(known[0]):
        return
    *others, last = (repr(choice) for choice in known)
    hint = did_you_mean(str(value), map(str, known))
    raise UserError(f"`{option}` must be {', '.join(others)} or {last}, got {quote(value)}{hint}")


def check_bool(option: str, value: object) -> None:
    """Raise a UserError unless an option is true or false."""
    if not isinstance(value, bool):
        raise UserError(f"`{option}` must be true or false, got {quote(value)}")


class Problem(NamedTuple):
    """Something that can be wrong with images or objects, how it is counted, and the remedy."""

    option: str  # with which the user chooses what is done
    text: str  # "images have no labels"
    remedy: str


def settle(
    name: str, problem: Problem, affected: BoolArray, choice: str, where: Callable[[int], str]
) -> tuple[BoolArray, tuple[str, ...]]:
    """Which images or objects are kept, and a note on the affected: (N,) -> (N,), notes.

    The choice is keep (without a note), skip, fail, or the name of a change that the caller makes.
    `where` names the place of one of the N. Raises a UserError where the choice is fail.
    """
    everything = np.ones(len(affected), dtype=bool)
    count = int(affected.sum())
    if not count or choice == "keep":
        return everything, ()
    text = f"{name}: {count} of {len(affected)} {problem.text}"
    first = f"the first is {where(int(affected.argmax()))}"
    if choice == "fail":
        raise UserError(
            f"{text}, {first}; {problem.remedy}, or skip them with {problem.option}='skip'"
        )
    kept = ~affected if choice == "skip" else everything
    return kept, (f"{text} and are {_DONE[choice]}; {first}",)
