"""Random samples of other classes, independent of how many ranks share a batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stillhouse.distributed import gather, rank
from stillhouse.errors import UserError
from stillhouse.functional.contrast import sample_other_class
from stillhouse.types import Clock

LARGE = 2**62  # far above any number of samples, so that the bias of a remainder is negligible
STRIDE = 1_000_003  # between the generator seeds of two steps; `seed` is added to it


class Negatives(nn.Module):
    """Draws, for each image, training samples of other classes.

    Raises UserError for labels that are no class indices, and where all samples have one class.
    """

    label: Tensor  # (samples,) class index
    order: Tensor  # (samples,) sorted by class
    first: Tensor  # (classes,) where each class begins in that order
    count: Tensor  # (classes,)

    def __init__(self, labels: Tensor, number: int, seed: int) -> None:
        super().__init__()
        if labels.ndim != 1:
            raise UserError(
                f"crd draws samples of another class, but the labels have shape "
                f"{' x '.join(map(str, labels.shape))}; use crd where each image has one class"
            )
        _, label, count = labels.unique(return_inverse=True, return_counts=True)
        if len(count) < 2:
            raise UserError(
                f"crd draws samples of other classes, but all {len(labels)} are of one class; "
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
        """The indices of the negatives: (N,), (N,) -> (N, K).

        Images of weight 0 do not change the negatives of others.
        """
        rows, total = global_rows(keys, weight)
        generator = torch.Generator(keys.device).manual_seed(clock.step * STRIDE + self.seed)
        draws = torch.randint(LARGE, (total, self.number), generator=generator, device=keys.device)
        return self.order[sample_other_class(draws[rows], self.label[keys], self.first, self.count)]


def global_rows(keys: Tensor, weight: Tensor | None) -> tuple[Tensor, int]:
    """The index of each image among all images of positive weight of all ranks, and their number.

    (N,), (N,) -> (N,), number.
    """
    owner = gather(torch.full_like(keys, rank()))
    counted = torch.ones_like(owner) if weight is None else gather((weight > 0).to(owner.dtype))
    total = len(owner) if weight is None else int(counted.sum())
    rows = (owner < rank()).sum() + torch.arange(len(keys), device=keys.device)
    return (counted.cumsum(0)[rows] - 1).clamp(min=0), max(1, total)
