"""Loads batches sample by sample, in worker processes if there are any."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stillhouse.batches import Target
from stillhouse.data.images import limit_pixels, pixel_limit
from stillhouse.data.mosaic import MosaicSamples
from stillhouse.data.padding import pad_images, pad_target
from stillhouse.data.positions import NOT_PADDED, ONE_VIEW, SEARCHED, has_positions
from stillhouse.data.source import Sample, Source
from stillhouse.data.targets import collate, is_spatial
from stillhouse.data.transforms import Chain
from stillhouse.errors import UserError


class Fetched(NamedTuple):
    """One batch before normalisation."""

    target: Target
    indices: Tensor  # (V + 1, N): keys, then the view numbers of each of V views
    images: list[Tensor]  # V x (N, C, H, W) uint8
    # with boxes or masks, (N, 2): height and width before padding, and as read
    sizes: Tensor | None
    originals: Tensor | None


def fetch(
    source: Source,
    chains: Sequence[Chain],
    indices: Iterable[Tensor],
    *,
    workers: int = 0,
    pinned: bool = False,
    seed: int = 0,
    pad: int = 1,
    mosaics: MosaicSamples | None = None,
) -> Iterator[Fetched]:
    """Batches of a source, one for each tensor (V + 1, N) of `indices`, with a chain per view.

    Images with boxes or masks are padded to a multiple of `pad`; `mosaics` gives them instead of
    the source.
    """
    with warnings.catch_warnings():
        # torch warns of many workers at each epoch; a run says it once, in its own words
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
        loader = torch.utils.data.DataLoader(
            _Batches(source, tuple(chains), pad, mosaics, pixel_limit()),
            batch_size=None,
            sampler=(rows.tolist() for rows in indices),
            num_workers=workers,
            pin_memory=pinned,
            # With a generator of its own, starting an epoch does not draw from torch's global one.
            generator=torch.Generator().manual_seed(seed),
        )
        batches = iter(loader)
    for batch in batches:
        if isinstance(batch, UserError):
            raise batch
        yield batch


@dataclass(frozen=True, eq=False)
class _Batches(torch.utils.data.Dataset[Fetched | UserError]):
    source: Source
    chains: tuple[Chain, ...]
    pad: int
    mosaics: MosaicSamples | None
    pixels: int  # the largest number of an image

    def __getitem__(self, rows: list[list[int]]) -> Fetched | UserError:
        indices = torch.tensor(rows)
        limit_pixels(self.pixels)  # in a new process, it would be the default
        try:
            samples = self._read(*rows[:2])
            if self._padded(samples):
                return _fetch_with_targets(samples, self.chains, indices, self.pad)
            return _fetch_images(samples, self.chains, indices)
        except UserError as error:
            return error  # raised in a worker, its message would contain a traceback

    @cached_property
    def _positions(self) -> bool | None:
        return has_positions(self.source, SEARCHED)

    def _read(self, keys: list[int], views: list[int]) -> list[Sample]:
        if self.mosaics is None:
            return [self.source[key] for key in keys]
        return [self.mosaics.sample(*numbers) for numbers in zip(keys, views, strict=True)]

    def _padded(self, samples: Sequence[Sample]) -> bool:
        """Whether the images of a batch are padded to one size, as those with positions are.

        A batch without targets is like those of the rest of the source; if it has none at all,
        `pad` says it.
        """
        known = [sample.target for sample in samples if sample.target is not None]
        if known:
            positions: bool | None = any(is_spatial(target) for target in known)
        else:
            positions = self._positions
        if positions is None:
            return self.pad > 1
        if self.pad > 1 and not positions:
            raise UserError(NOT_PADDED)
        return positions


def _fetch_images(samples: Sequence[Sample], chains: Sequence[Chain], indices: Tensor) -> Fetched:
    """A batch whose targets do not depend on the transforms of its images."""
    keys, *views = indices
    images = [sample.image for sample in samples]
    transformed = [chain(images, keys, v) for chain, v in zip(chains, views, strict=True)]
    target = collate([sample.target for sample in samples])
    return Fetched(target, indices, transformed, None, None)


def _fetch_with_targets(
    samples: Sequence[Sample], chains: Sequence[Chain], indices: Tensor, pad: int
) -> Fetched:
    """A batch with boxes or masks, which are transformed with the images and padded to one size."""
    if len(chains) > 1:
        raise UserError(ONE_VIEW)
    keys, views = indices.tolist()
    pairs: list[tuple[Tensor, Any]] = [
        chains[0].whole.sample(sample.image, sample.target, key, view)
        for sample, key, view in zip(samples, keys, views, strict=True)
    ]
    images, sizes = pad_images([image for image, _ in pairs], pad)
    height, width = images.shape[-2:]
    target = collate([pad_target(target, height, width) for _, target in pairs])
    originals = torch.tensor([sample.image.shape[-2:] for sample in samples])
    return Fetched(target, indices, [images], sizes, originals)
