"""What a dense detector returns: the raw predictions of all priors, as one value."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from stillhouse.batches import Objects
from stillhouse.models.detectors.assign import Assignment
from stillhouse.models.detectors.priors import Priors
from stillhouse.types import Terms


@dataclass(frozen=True, eq=False)
class Dense:
    """Raw predictions for N images, P priors and C classes."""

    scores: Tensor  # (N, P, C) logits
    boxes: Tensor  # (N, P, B) as the head gives them; the family decodes them
    priors: Priors
    family: Family
    quality: Tensor | None = None  # (N, P) logits of centre-ness, where the family has it
    initial: Tensor | None = None  # (N, P, B) of a first stage that the boxes refine

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def classes(self) -> int:
        """The number of classes."""
        return self.scores.shape[-1]

    @property
    def strides(self) -> tuple[int, ...]:
        """Those of all levels."""
        return self.priors.strides

    def rows(self, index: slice | Tensor) -> Dense:
        """The predictions for some of the images."""
        names = ("scores", "boxes", "quality", "initial")
        parts = {name: getattr(self, name) for name in names}
        chosen: dict[str, Any] = {n: None if x is None else x[index] for n, x in parts.items()}
        return replace(self, **chosen)

    def select(self, index: Tensor) -> Dense:
        """Some classes, in the order of their indices: (K,) int64."""
        return replace(self, scores=self.scores.index_select(-1, index))

    def assign(self, objects: Objects) -> Assignment:
        """The object of each prior."""
        return self.family.assign(self, objects)

    def terms(self, assigned: Assignment) -> Terms:
        """The loss terms of the family."""
        return self.family.terms(self, assigned)

    def class_logits(self) -> Tensor:
        """The highest logit of each class in each image: -> (N, C)."""
        return self.scores.amax(1)

    @property
    def decoded(self) -> Tensor:
        """Boxes x1, y1, x2, y2 in pixels, decoded once: -> (N, P, 4)."""
        known: Tensor | None = self.__dict__.get("_decoded")
        # what was decoded without a gradient is of no use to a loss
        needed = torch.is_grad_enabled() and self.boxes.requires_grad
        if known is None or (needed and not known.requires_grad):
            known = self.__dict__["_decoded"] = self.family.decode(self)
        return known


@dataclass(frozen=True)
class Suppression:
    """How raw predictions become detections."""

    threshold: float = 0.05  # least probability of a class
    candidates: int = 1000  # of each level, before suppression
    iou: float = 0.5  # of the same class, above which the lower one is dropped
    most: int = 100  # detections of an image


class Family(Protocol):
    """A kind of detector: what its raw predictions mean, and the losses that it learns from."""

    @property
    def suppression(self) -> Suppression:
        """The options of suppression."""
        ...

    def assign(self, out: Dense, objects: Objects) -> Assignment:
        """The object of each prior."""
        ...

    def terms(self, out: Dense, assigned: Assignment) -> Terms:
        """The loss terms of one batch."""
        ...

    def decode(self, out: Dense) -> Tensor:
        """Boxes x1, y1, x2, y2 in pixels: -> (N, P, 4)."""
        ...

    def probabilities(self, out: Dense) -> Tensor:
        """The score of each class for the ranking of detections: -> (N, P, C)."""
        ...
