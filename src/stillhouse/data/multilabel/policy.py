"""What becomes of images and labels that something is amiss with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stillhouse.errors import UserError, did_you_mean

Bits = npt.NDArray[np.bool_]

CHOICES = {
    "unlabelled": ("keep", "skip", "fail"),
    "unknown": ("skip", "fail"),
    "missing": ("skip", "fail"),
    "broken": ("skip", "fail"),
}


@dataclass(frozen=True)
class Policy:
    """What to do with images that have no label, are not there or are damaged, and with labels
    that are of no class: keep them, skip them, or fail.
    """

    unlabelled: str = "keep"
    unknown: str = "fail"
    missing: str = "fail"
    broken: str = "fail"

    def __post_init__(self) -> None:
        for option, known in CHOICES.items():
            check_choice(option, getattr(self, option), known)


def check_choice(option: str, value: object, known: Sequence[object]) -> None:
    """Refuse a value that an option cannot have."""
    if value in known and type(value) is type(known[0]):
        return
    *others, last = (repr(one) for one in known)
    hint = did_you_mean(str(value), map(str, known))
    raise UserError(f"{option} is {value!r}, and can be {', '.join(others)} or {last}{hint}")


def check_switch(option: str, value: object) -> None:
    """Refuse what is neither true nor false."""
    if not isinstance(value, bool):
        raise UserError(f"{option} is {value!r}, and can be true or false")


class Flaw(NamedTuple):
    """Something that may be amiss with a file: how it is said of many, and what mends it."""

    option: str  # of the policy
    said: str
    mend: str


def sift(
    name: str, root: Path, paths: Sequence[str], bad: Bits, flaw: Flaw, policy: Policy
) -> tuple[Bits, tuple[str, ...]]:
    """Which files stay, and a sentence on the others: (N,) paths, (N,) bad -> (N,) kept, notes."""
    choice = getattr(policy, flaw.option)
    count = int(bad.sum())
    if not count or choice == "keep":
        return np.ones(len(bad), dtype=bool), ()
    said = f"{name}: {count} of {len(bad)} {flaw.said}"
    first = f"{root / paths[int(bad.argmax())]} is the first"
    if choice == "skip":
        return ~bad, (f"{said}, and are left out; {first}",)
    raise UserError(f"{said}, {first}; {flaw.mend}, or leave them out with {flaw.option}='skip'")
