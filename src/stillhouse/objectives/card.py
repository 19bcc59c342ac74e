"""What a person wants to know of a method before using it."""

from __future__ import annotations

from typing import Literal, NamedTuple

Need = Literal["logits", "labels", "features", "batch"]


class Card(NamedTuple):
    """A method in a few sentences; `stillhouse methods NAME` prints it."""

    title: str
    formula: str
    paper: str
    needs: tuple[Need, ...]
    cost: str
    fails: str
