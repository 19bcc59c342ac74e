"""Which samples lie nearest to a query, by the distance of vectors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

NEAREST = 5


class Search:
    """Label-wise queries put to embeddings batch by batch, so that no embedding is kept.

    A query is the embedding of one class in one sample, (Q, D); it is compared with the embedding
    of the same class, (Q,), in every sample.
    """

    def __init__(self, asked: Tensor, classes: Tensor) -> None:
        self.asked = asked
        self.groups = [(int(c), (classes == c).nonzero().flatten()) for c in classes.unique()]
        self.parts: list[Tensor] = []

    def add(self, embeddings: Tensor) -> None:
        """Compare with a batch: (N, C, D)."""
        embeddings = embeddings.detach().float()
        found = embeddings.new_empty(len(self.asked), len(embeddings))
        for label, own in self.groups:
            own = own.to(embeddings.device)
            found[own] = distances(self.asked[own], embeddings[:, label])
        self.parts.append(found.cpu())

    def found(self, itself: Tensor) -> Tensor | None:
        """The samples nearest to each query, which is left out itself: (Q,) -> (Q, K)."""
        return nearest(torch.cat(self.parts, 1), itself) if self.parts else None


def distances(asked: Tensor, given: Tensor) -> Tensor:
    """Euclidean distances, by differences: (Q, D), (N, D) -> (Q, N)."""
    return torch.cdist(asked, given, compute_mode="donot_use_mm_for_euclid_dist")


def nearest(found: Tensor, itself: Tensor) -> Tensor | None:
    """The 5 nearest of all, of equal ones the first; None where a distance is no number.

    Distances (Q, N) and which sample each query is itself (Q,) -> (Q, K).
    """
    count = min(NEAREST, found.shape[1] - 1)
    if count < 1 or not bool(found.isfinite().all()):
        return None
    others = found.scatter(1, itself[:, None], math.inf)
    ranked: Tensor = others.argsort(dim=1, stable=True)
    return ranked[:, :count]
