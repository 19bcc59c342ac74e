"""Batches read sample by sample, in processes of their own where there are workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from stillhouse.data.source import Source, stacked
from stillhouse.data.transforms import Chain
from stillhouse.errors import UserError

Batch = list[
    Tensor
]  # (N,) or (N, classes) labels, (V + 1, N) keys and views, V x (N, C, H, W) uint8


def read(
    source: Source,
    looks: Sequence[Chain],
    turns: Iterable[Tensor],
    *,
    workers: int = 0,
    pinned: bool = False,
    seed: int = 0,
) -> Iterator[Batch]:
    """Batches of a source in one or more looks: rows of keys and of views, (V + 1, N) each."""
    loader = torch.utils.data.DataLoader(
        _Batches(source, looks),
        batch_size=None,
        sampler=(turn.tolist() for turn in turns),
        num_workers=workers,
        pin_memory=pinned,
        # Its own, or entering an epoch would take a number from those of the networks.
        generator=torch.Generator().manual_seed(seed),
    )
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        yield batch


class _Batches(torch.utils.data.Dataset[Batch | UserError]):
    def __init__(self, source: Source, looks: Sequence[Chain]) -> None:
        self.source, self.looks = source, tuple(looks)

    def __getitem__(self, turn: list[list[int]]) -> Batch | UserError:
        numbers = torch.tensor(turn)
        keys, *views = numbers
        try:
            samples = [self.source[key] for key in turn[0]]
            images = [sample.image for sample in samples]
            shown = [look(images, keys, v) for look, v in zip(self.looks, views, strict=True)]
        except UserError as error:
            return error  # raised in a worker, it would come with a traceback in its sentence
        return [stacked([sample.label for sample in samples]), numbers, *shown]
