"""Which samples are looked at closely, and how they are had once more."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stillhouse.batches import Batch
from stillhouse.explain.predictions import Close
from stillhouse.explain.row_statistics import evenly

SAMPLES, QUERIES = 200, 1000


class Closer(NamedTuple):
    """How some samples are had once more, by their keys."""

    batches: Callable[[Tensor], Iterable[Batch[Any]]]  # (M,) keys, in whose order they come
    pixels: Callable[[Tensor], Tensor]  # the images of a batch -> (N, C, H, W) uint8


def choose(labels: Tensor, keys: Tensor, closer: Closer) -> Close | None:
    """At most 200 samples, evenly of all by their labels alone: (N,) or (N, C), (N,)."""
    if labels.ndim == 1:
        ordered = labels.argsort(stable=True)  # sorted by class, evenly spaced is stratified
        samples = some(ordered, SAMPLES)
        asked, queries = labels[samples], torch.zeros(0, 2, dtype=torch.int64)
    else:
        present = labels > 0
        samples = some(present.any(1).nonzero().flatten(), SAMPLES)
        asked, queries = rarest(present, samples), some(present[samples].nonzero(), QUERIES)
    if not len(samples):
        return None

    def seen(places: Tensor) -> Tensor:
        wanted = closer.batches(keys[samples[places]])
        return torch.cat([closer.pixels(batch.images).cpu() for batch in wanted])

    return Close(samples, asked, queries, lambda: closer.batches(keys[samples]), seen)


def rarest(present: Tensor, samples: Tensor) -> Tensor:
    """The class of each of these samples that the fewest of all have: (N, C), (M,) -> (M,)."""
    counts = present.sum(0).expand(len(samples), -1)
    return counts.masked_fill(~present[samples], len(present) + 1).argmin(1)


def some(things: Tensor, limit: int) -> Tensor:
    """At most so many rows, evenly spaced."""
    return things[torch.from_numpy(evenly(len(things), limit))]
