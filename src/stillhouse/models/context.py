"""Blocks that add to each place of a map what the whole map says; discarded after training."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class ContextBlock(nn.Module):
    """Adds one vector to all places of a map: (N, C, H, W) -> (N, C, H, W).

    The vector is the mean over places by a learnt attention, after two 1x1 convolutions with layer
    norm and ReLU between them (GCNet, Cao et al., 2019). The last one starts at 0, so that the
    block starts as an identity.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        middle = max(1, width // 2)
        self.attend = nn.Conv2d(width, 1, 1)
        nn.init.kaiming_normal_(self.attend.weight, mode="fan_in", nonlinearity="relu")
        self.transform = nn.Sequential(
            nn.Conv2d(width, middle, 1),
            nn.LayerNorm([middle, 1, 1]),
            nn.ReLU(),
            zeroed(nn.Conv2d(middle, width, 1)),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        attention = self.attend(maps).flatten(2).softmax(2)  # (N, 1, H W)
        pooled = maps.flatten(2) @ attention.mT
        added: Tensor = self.transform(pooled[..., None])
        return maps + added


class NonLocalBlock(nn.Module):
    """Adds to each place a mean of all places, weighted by dot products: (N, C, H, W) -> same.

    Keys and values (Wang X. et al., 2018) have `middle` channels, and are pooled by maxima of
    `pooled` x `pooled` places. The last convolution starts at 0, so that the block starts as an
    identity.
    """

    def __init__(self, width: int, middle: int, pooled: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Conv2d(width, middle, 1) for _ in range(3))
        self.expand = zeroed(nn.Conv2d(middle, width, 1))
        self.pooled = pooled

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        size = (min(self.pooled, maps.shape[2]), min(self.pooled, maps.shape[3]))
        keys, values = (
            F.max_pool2d(layer(maps), size).flatten(2) for layer in (self.key, self.value)
        )
        # Without a softmax, (values keys^T) queries equals values (keys^T queries), whose matrix
        # of all pairs of places would be large.
        relation = values @ keys.mT / keys.shape[2]
        mixed = relation @ self.query(maps).flatten(2)
        added: Tensor = self.expand(mixed.unflatten(2, maps.shape[2:]))
        return maps + added


def zeroed(conv: nn.Conv2d) -> nn.Conv2d:
    """The same layer with weights and bias of 0."""
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv
