"""Random samples of anchors and regions with a share of positives, image by image."""

from __future__ import annotations

import torch
from torch import Tensor


def random_sample(
    image: Tensor, positive: Tensor, negative: Tensor, count: int, share: float
) -> Tensor:
    """A random sample of `count` rows per image: (R,) image, (R,) bool, (R,) bool -> (R,) bool.

    Up to `share` of them are positives; negatives fill the rest. Fewer are taken where an image has
    fewer.
    """
    images = int(image.max()) + 1 if len(image) else 0
    draw = torch.rand(len(image), device=image.device, dtype=torch.float64)
    hits = positive & (rank_within(image, draw, positive) < int(count * share))
    taken = torch.zeros(images, dtype=torch.int64, device=image.device)
    taken = taken.scatter_add(0, image, hits.long())
    return hits | (negative & (rank_within(image, draw, negative) < count - taken[image]))


def rank_within(group: Tensor, key: Tensor, member: Tensor) -> Tensor:
    """The rank of each member among those of its group, by key: (R,), (R,) in [0, 1), (R,) bool.

    -> (R,) int64, from 0; not defined for others.
    """
    order = (group + key).masked_fill(~member, float("inf")).argsort()
    sizes = torch.zeros(len(group) + 1, dtype=torch.int64, device=group.device)
    sizes = sizes.scatter_add(0, group, member.long())
    start = sizes.cumsum(0) - sizes
    place = torch.arange(len(group), device=group.device)
    return torch.empty_like(place).scatter(0, order, place) - start[group]
