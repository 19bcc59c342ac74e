"""Errors that the user can fix, and suggestions for misspelt names."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches


class UserError(Exception):
    """An error that the user can fix: one sentence with the place and the remedy, exit code 2."""


QUOTED = 100  # letters of a value in a message


def quote(value: object) -> str:
    """A value as Python writes it, cut after 100 letters."""
    text = repr(value)
    return text if len(text) <= QUOTED else f"{text[: QUOTED - 1]}…"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A suggestion to append to a message, empty if no known name is similar."""
    if len(word) > QUOTED:
        return ""
    known = list(dict.fromkeys(known))
    # A known name that contains the word ("timm/resnet18" for "resnet18") is the best suggestion.
    similar = [name for name in known if word and word.lower() in name.lower()]
    similar = similar or closest_matches(word, known)
    return f"; did you mean {' or '.join(repr(name) for name in similar[:3])}?" if similar else ""


def closest_matches(word: str, known: list[str]) -> list[str]:
    """Up to three similar names, without those that are clearly less similar than the first."""
    names = get_close_matches(word, known, n=3, cutoff=0.6)
    ratios = [SequenceMatcher(None, word, name).ratio() for name in names]
    return [n for n, r in zip(names, ratios, strict=True) if r > ratios[0] - 0.15]
