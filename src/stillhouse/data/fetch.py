"""Loads batches sample by sample, in worker processes if there are any."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stillhouse.batches import Target
from stillhouse.data.padding import pad_images, pad_target
from stillhouse.data.source import Sample, Source
from stillhouse.data.targets import collate, is_spatial
from stillhouse.data.transforms import Chain
from stillhouse.errors import UserError


class Fetched(NamedTuple):
    """One batch before normalisation."""

    target: Target
    indices: Tensor  # (V + 1, N): keys, then the view numbers of each of V views
    images: list[Tensor]  # V x (N, C, H, W) uint8
    sizes: Tensor | None  # (N, 2) height and width before padding, None without padding


def fetch(
    source: Source,
    chains: Sequence[Chain],
    indices: Iterable[Tensor],
    *,
    workers: int = 0,
    pinned: bool = False,
    seed: int = 0,
) -> Iterator[Fetched]:
    """Batches of a source, one for each tensor (V + 1, N) of `indices`, with a chain per view."""
    loader = torch.utils.data.DataLoader(
        _Batches(source, chains),
        batch_size=None,
        sampler=(rows.tolist() for rows in indices),
        num_workers=workers,
        pin_memory=pinned,
        # With a generator of its own, starting an epoch does not draw from torch's global one.
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
            if any(is_spatial(sample.target) for sample in samples):
                return _fetch_with_targets(samples, self.chains, indices)
            return _fetch_images(samples, self.chains, indices)
        except UserError as error:
            return error  # raised in a worker, its message would contain a traceback


def _fetch_images(samples: Sequence[Sample], chains: Sequence[Chain], indices: Tensor) -> Fetched:
    """A batch whose targets do not depend on the transforms of its images."""
    keys, *views = indices
    images = [sample.image for sample in samples]
    transformed = [chain(images, keys, v) for chain, v in zip(chains, views, strict=True)]
    return Fetched(collate([sample.target for sample in samples]), indices, transformed, None)


def _fetch_with_targets(
    samples: Sequence[Sample], chains: Sequence[Chain], indices: Tensor
) -> Fetched:
    """A batch with boxes or masks, which are transformed with the images and padded to one size."""
    if len(chains) > 1:
        raise UserError(
            "images with boxes or masks have no second view, because the targets would fit only "
            "one of the two; choose a method that needs one view"
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
