"""A subset of the images, for what is too large to be kept for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stillhouse.batches import Batch
from stillhouse.explain.row_statistics import evenly_spaced

IMAGES, QUERIES = 200, 1000  # at most


@dataclass(frozen=True, eq=False)
class Subset:
    """Images with class activation maps, and queries of the image retrieval."""

    samples: Tensor  # (M,) indices among the images of the predictions
    labels: Tensor  # (M,) class of each activation map: of several classes the rarest
    queries: Tensor  # (Q, 2) position in this subset, and class
    batches: Callable[[], Iterable[Batch[Any]]]  # these images, in this order
    pixels: Callable[[Tensor], Tensor]  # positions (P,) -> network inputs (P, C, H, W) uint8


class SubsetLoader(NamedTuple):
    """How some images are loaded again by their keys."""

    batches: Callable[[Tensor], Iterable[Batch[Any]]]  # keys (M,) -> batches in this order
    pixels: Callable[[Tensor], Tensor]  # normalised images of a batch -> (N, C, H, W) uint8


def choose_subset(labels: Tensor, keys: Tensor, loader: SubsetLoader) -> Subset | None:
    """At most 200 images, evenly spaced over classes or images; None if no image has a class.

    Labels (N,) or (N, C), keys (N,).
    """
    if labels.ndim == 1:
        by_class = labels.argsort(stable=True)  # evenly spaced, this is stratified
        samples = thin_out(by_class, IMAGES)
        chosen, queries = labels[samples], torch.zeros(0, 2, dtype=torch.int64)
    else:
        positives = labels > 0
        samples = thin_out(positives.any(1).nonzero().flatten(), IMAGES)
        chosen = rarest_class(positives, samples)
        queries = thin_out(positives[samples].nonzero(), QUERIES)
    if not len(samples):
        return None

    def pixels(positions: Tensor) -> Tensor:
        batches = loader.batches(keys[samples[positions]])
        return torch.cat([loader.pixels(batch.images).cpu() for batch in batches])

    return Subset(samples, chosen, queries, lambda: loader.batches(keys[samples]), pixels)


def rarest_class(positives: Tensor, samples: Tensor) -> Tensor:
    """For each of these images its class with the fewest images: (N, C), (M,) -> (M,)."""
    counts = positives.sum(0).expand(len(samples), -1)
    return counts.masked_fill(~positives[samples], len(positives) + 1).argmin(1)


def thin_out(rows: Tensor, limit: int) -> Tensor:
    """At most `limit` of the rows, evenly spaced."""
    return rows[torch.from_numpy(evenly_spaced(len(rows), limit))]
