"""The nearest images of a query, by the Euclidean distance of vectors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

NEAREST = 5


class LabelwiseSearch:
    """Search by label-wise embeddings, batch by batch, so that no embedding is kept.

    A query is the embedding of one class in one image, (Q, D). It is compared with the embedding
    of the same class, (Q,), in every image.
    """

    def __init__(self, queries: Tensor, classes: Tensor) -> None:
        self.queries = queries
        self.by_class = [(int(c), (classes == c).nonzero().flatten()) for c in classes.unique()]
        self.distances: list[Tensor] = []

    def add(self, embeddings: Tensor) -> None:
        """Compare the queries with a batch: (N, C, D)."""
        embeddings = embeddings.detach().float()
        distances = embeddings.new_empty(len(self.queries), len(embeddings))
        for label, rows in self.by_class:
            rows = rows.to(embeddings.device)
            distances[rows] = euclidean_distances(self.queries[rows], embeddings[:, label])
        self.distances.append(distances.cpu())

    def nearest(self, query_images: Tensor) -> Tensor | None:
        """The nearest images of each query except its own image: (Q,) -> (Q, K)."""
        return (
            nearest_images(torch.cat(self.distances, 1), query_images) if self.distances else None
        )


def euclidean_distances(queries: Tensor, vectors: Tensor) -> Tensor:
    """Euclidean distances from differences, not from products: (Q, D), (N, D) -> (Q, N)."""
    return torch.cdist(queries, vectors, compute_mode="donot_use_mm_for_euclid_dist")


def nearest_images(distances: Tensor, query_images: Tensor) -> Tensor | None:
    """The 5 nearest images; ties in the order of the images; None if a distance is not finite.

    Distances (Q, N) and the image of each query (Q,) -> (Q, K).
    """
    count = min(NEAREST, distances.shape[1] - 1)
    if count < 1 or not bool(distances.isfinite().all()):
        return None
    others = distances.scatter(1, query_images[:, None], math.inf)
    ranked: Tensor = others.argsort(dim=1, stable=True)
    return ranked[:, :count]
