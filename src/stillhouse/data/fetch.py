"""Batches fetched sample by sample, in worker processes where there are any."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stillhouse.batches import Target
from stillhouse.data.padding import pad_images, pad_target
from stillhouse.data.source import Sample, Source
from stillhouse.data.targets import collate, moves
from stillhouse.data.transforms import Chain
from stillhouse.errors import UserError


class Fetched(NamedTuple):
    """One batch before normalisation."""

    target: Target
    indices: Tensor  # (V + 1, N): keys, then the view numbers of each of V views
    images: list[Tensor]  # V x (N, C, H, W) uint8
    sizes: Tensor | None  # (N, 2) before padding


def fetch(
    source: Source,
    chains: Sequence[Chain],
    indices: Iterable[Tensor],
    *,
    workers: int = 0,
    pinned: bool = False,
    seed: int = 0,
) -> Iterator[Fetched]:
    """Batches of a source in one or more views: rows of keys and of view numbers, (V + 1, N)."""
    loader = torch.utils.data.DataLoader(
        _Batches(source, chains),
        batch_size=None,
        sampler=(rows.tolist() for rows in indices),
        num_workers=workers,
        pin_memory=pinned,
        # Its own, or entering an epoch would take a number from those of the networks.
        generator=torch.Generator().manual_seed(seed),
    )
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        yield batch


class _Batches(torch.utils.data.Dataset[Fetched | UserError]):
    def __init__(self, source: Source, chains: Sequence[Chain]) -> None:
        self.source, self.chains = source, tuple(chains)

    def __getitem__(self, rows: list[list[int]]) -> Fetched | UserError:
        indices = torch.tensor(rows)
        try:
            samples = [self.source[key] for key in rows[0]]
            if any(moves(sample.target) for sample in samples):
                return _moved(samples, self.chains, indices)
            return _changed(samples, self.chains, indices)
        except UserError as error:
            return error  # raised in a worker, it would come with a traceback in its sentence


def _changed(samples: Sequence[Sample], chains: Sequence[Chain], indices: Tensor) -> Fetched:
    """Images alone are transformed."""
    keys, *views = indices
    images = [sample.image for sample in samples]
    shown = [chain(images, keys, v) for chain, v in zip(chains, views, strict=True)]
    return Fetched(collate([sample.target for sample in samples]), indices, shown, None)


def _moved(samples: Sequence[Sample], chains: Sequence[Chain], indices: Tensor) -> Fetched:
    """Images are transformed together with what lies in them, and padded to one size."""
    if len(chains) > 1:
        raise UserError(
            "a second view is not available for boxes and masks, which would move in one of two "
            "views only; choose a method that needs one view"
        )
    keys, views = indices.tolist()
    pairs: list[tuple[Tensor, Any]] = [
        chains[0].whole.sample(sample.image, sample.target, key, view)
        for sample, key, view in zip(samples, keys, views, strict=True)
    ]
    images, sizes = pad_images([image for image, _ in pairs])
    height, width = images.shape[-2:]
    target = collate([pad_target(target, height, width) for _, target in pairs])
    return Fetched(target, indices, [images], sizes)
