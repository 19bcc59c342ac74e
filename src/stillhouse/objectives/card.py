"""What a person wants to know of a method before using it."""

from __future__ import annotations

from typing import Literal, NamedTuple

# "labels": the label or labels of each image; "class": that there is only one
Need = Literal["logits", "labels", "class", "features", "batch", "views", "keys", "head", "moves"]


class Card(NamedTuple):
    """A method in a few sentences; `stillhouse methods NAME` prints it."""

    title: str
    formula: str
    paper: str
    needs: tuple[Need, ...]
    cost: str
    fails: str

    @property
    def storable(self) -> bool:
        """Whether a teacher's kept logits are all that it asks of the teacher."""
        return not {"features", "views", "head", "moves"} & set(self.needs)
