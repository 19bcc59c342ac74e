"""What to do with images and labels that have a problem: keep, skip or fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stillhouse.data.problems import BoolArray, Problem, check_choice, settle

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
    return settle(name, problem, affected, choice, lambda i: str(root / paths[i]))
