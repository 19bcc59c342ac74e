"""Mistakes that a user can make, each said in one sentence."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches


class UserError(Exception):
    """Something the user can mend: one sentence with the place and the mend, exit code 2."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint to append to a sentence, empty when nothing known resembles the word."""
    known = list(dict.fromkeys(known))
    # A short name inside a longer one ("resnet18" in "timm/resnet18") is the likeliest slip of all.
    near = [name for name in known if word and word.lower() in name.lower()]
    near = near or closest(word, known)
    return f"; did you mean {' or '.join(repr(name) for name in near[:3])}?" if near else ""


def closest(word: str, known: list[str]) -> list[str]:
    """Up to three names that a slip may have come from, and none that is clearly farther."""
    found = get_close_matches(word, known, n=3, cutoff=0.6)
    likeness = [SequenceMatcher(None, word, name).ratio() for name in found]
    return [n for n, r in zip(found, likeness, strict=True) if r > likeness[0] - 0.15]
