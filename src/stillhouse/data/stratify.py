"""Stratified subsets: every class has about the same share as in the whole."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stillhouse.batches import Target
from stillhouse.data.random import derive_seed
from stillhouse.data.targets import presence


def stratify(targets: Target, classes: int, count: int, seed: int) -> Tensor:
    """The sorted indices of `count` samples with the class shares of all samples: -> (count,).

    The classes of a sample are those that its target contains.
    """
    if isinstance(targets, Tensor) and targets.ndim == 1:
        return _by_class(targets, count, seed)
    return _by_presence(presence(targets, classes), count, seed)


def _by_class(labels: Tensor, count: int, seed: int) -> Tensor:
    """One class per sample: (N,) -> (count,)."""
    names, sizes = labels.unique(return_counts=True)
    quota = (sizes * count).div(len(labels), rounding_mode="floor")
    # The rest goes to the classes with the largest remainders, and with ties to the lower index.
    order = (sizes * count % len(labels)).argsort(descending=True, stable=True)
    quota[order[: count - int(quota.sum())]] += 1
    chosen = []
    for name, size in zip(names.tolist(), quota.tolist(), strict=True):
        members = (labels == name).nonzero().flatten()
        generator = torch.Generator().manual_seed(derive_seed(seed, name))
        chosen.append(members[torch.randperm(len(members), generator=generator)[:size]])
    return torch.cat(chosen).sort().values


def _by_presence(hot: Tensor, count: int, seed: int) -> Tensor:
    """Any number of classes per sample: (N, C) bool -> (count,).

    Classes are handled from the rarest to the most common, as in Sechidis et al., 2011; samples
    without a class count as a class. Rounding errors are carried to the next class, and no class is
    taken completely.
    """
    hot = torch.cat([hot, ~hot.any(1, keepdim=True)], 1)
    generator = torch.Generator().manual_seed(derive_seed(seed, hot.shape[1]))
    shuffled = torch.randperm(len(hot), generator=generator)
    chosen = torch.zeros(len(hot), dtype=torch.bool)
    decided = chosen.clone()
    sizes, carried = hot.sum(0), 0.0
    for name in sizes.argsort(stable=True).tolist():
        members, size = hot[:, name], int(sizes[name])
        taken = int((members & chosen).sum())
        wanted = max(0.0, size * count / len(hot) - taken) + carried
        limit = min(count - int(chosen.sum()), size - 1 - taken, math.floor(wanted + 0.5))
        free = shuffled[(members & ~decided)[shuffled]][: max(0, limit)]
        chosen[free] = True
        carried = max(-1.0, min(1.0, wanted - len(free)))
        decided |= members
    # Missing samples are taken from those whose rarest class is the most common.
    rarest = sizes.expand(len(hot), -1).where(hot, len(hot) + 1).amin(1)
    others = shuffled[~chosen[shuffled]]
    others = others[rarest[others].argsort(descending=True, stable=True)]
    chosen[others[: count - int(chosen.sum())]] = True
    return chosen.nonzero().flatten()
