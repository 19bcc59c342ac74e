"""The description of a method that users see."""

from __future__ import annotations

from typing import Literal, NamedTuple

# "labels": the labels of each image; "class": exactly one label per image; "boxes": predictions of
# a detector; "objects": those that it is trained on; "masks": a class for each pixel
Need = Literal[
    "logits",
    "labels",
    "class",
    "features",
    "batch",
    "views",
    "keys",
    "head",
    "moves",
    "boxes",
    "objects",
    "masks",
]


class Card(NamedTuple):
    """The description of a method, printed by `stillhouse methods NAME`."""

    title: str
    formula: str
    paper: str
    needs: tuple[Need, ...]
    cost: str
    limits: str

    @property
    def storable(self) -> bool:
        """Whether stored teacher logits are all that it needs of the teacher."""
        return not {"features", "views", "head", "moves", "boxes", "masks"} & set(self.needs)
