"""Random samples of other classes, the same however many ranks share a batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stillhouse.distributed import gather, rank
from stillhouse.errors import UserError
from stillhouse.functional.contrast import sample_other_class
from stillhouse.types import Clock

LARGE = 2**62  # far above any number of samples, so that a remainder is as good as uniform
STRIDE = 1_000_003  # between the generators of two steps; seeds lie between


class Negatives(nn.Module):
    """Draws, for each image, samples of the training set that are not of its class."""

    label: Tensor  # (samples,) class index
    order: Tensor  # (samples,) sorted by class
    first: Tensor  # (classes,) where each class begins in that order
    count: Tensor  # (classes,)

    def __init__(self, labels: Tensor, number: int, seed: int) -> None:
        super().__init__()
        if labels.ndim != 1:
            raise UserError(
                f"negatives are samples of another class, and the labels have shape "
                f"{' x '.join(map(str, labels.shape))}; use crd where each image has one class"
            )
        _, label, count = labels.unique(return_inverse=True, return_counts=True)
        if len(count) < 2:
            raise UserError(
                f"crd draws samples of other classes, and all {len(labels)} are of one class; "
                "use another method"
            )
        self.number, self.seed = number, seed
        parts = {
            "label": label,
            "order": label.argsort(stable=True),
            "first": count.cumsum(0) - count,
            "count": count,
        }
        for name, part in parts.items():
            self.register_buffer(name, part, persistent=False)

    def forward(self, keys: Tensor, weight: Tensor | None, clock: Clock) -> Tensor:
        """Which samples: (N,), (N,) -> (N, K); images of weight 0 take no draws from the others."""
        rows, total = numbered(keys, weight)
        generator = torch.Generator(keys.device).manual_seed(clock.step * STRIDE + self.seed)
        draws = torch.randint(LARGE, (total, self.number), generator=generator, device=keys.device)
        return self.order[sample_other_class(draws[rows], self.label[keys], self.first, self.count)]


def numbered(keys: Tensor, weight: Tensor | None) -> tuple[Tensor, int]:
    """The number of each image among those of all ranks that count, and how many there are."""
    owner = gather(torch.full_like(keys, rank()))
    counted = torch.ones_like(owner) if weight is None else gather((weight > 0).to(owner.dtype))
    total = len(owner) if weight is None else int(counted.sum())
    own = (owner < rank()).sum() + torch.arange(len(keys), device=keys.device)
    return (counted.cumsum(0)[own] - 1).clamp(min=0), max(1, total)
