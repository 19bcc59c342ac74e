"""A critic of class maps, for adversarial distillation; discarded after training."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from stillhouse.errors import UserError

DEPTH = 4  # convolutions of stride 2, where maps are large enough
KERNEL = 4
SLOPE = 0.1  # negative slope of the leaky ReLUs


class Critic(nn.Module):
    """One score for each map: (N, channels, H, W) -> (N,).

    Convolutions of 4x4 pixels and stride 2 with spectral norm, self-attention after the last two,
    and a convolution to one channel, averaged over places (Liu Y. et al., 2020). `size` is that of
    the maps; maps of less than 32 pixels a side get fewer convolutions, so that attention has
    places to choose from. There are no batch statistics, so the score of an image does not depend
    on others. Raises UserError for maps of one pixel a side.
    """

    def __init__(self, channels: int, size: tuple[int, int], width: int = 64) -> None:
        super().__init__()
        if min(size) < 2:
            raise UserError(
                f"a critic needs class maps of 2 x 2 pixels or more, got {size[0]} x {size[1]}; "
                "take larger images, or set method.adversarial=none"
            )
        depth = min(DEPTH, max(1, min(size).bit_length() - 2))
        layers: list[nn.Module] = []
        for index in range(depth):
            after = width * 2**index
            conv = nn.Conv2d(channels, after, KERNEL, stride=2, padding=1)
            layers += [spectral_norm(conv), nn.LeakyReLU(SLOPE)]
            if index >= depth - 2:
                layers.append(SelfAttention(after))
            channels = after
        rest = (min(KERNEL, size[0] >> depth), min(KERNEL, size[1] >> depth))
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 1, rest))

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels, H, W) -> (N,)."""
        scores: Tensor = self.layers(maps).mean((1, 2, 3))
        return scores


class SelfAttention(nn.Module):
    """Adds to each place a mean of all places by attention: (N, C, H, W) -> (N, C, H, W).

    Zhang H. et al., 2019. The factor of what is added starts at 0.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        middle = max(1, width // 8)
        self.query, self.key = nn.Conv2d(width, middle, 1), nn.Conv2d(width, middle, 1)
        self.value = nn.Conv2d(width, width, 1)
        self.factor = nn.Parameter(torch.zeros(1))

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        query, key, value = (layer(maps).flatten(2) for layer in (self.query, self.key, self.value))
        attention = (query.mT @ key).softmax(-1)  # (N, places, places that they look at)
        added: Tensor = (value @ attention.mT).unflatten(2, maps.shape[2:])
        return maps + self.factor * added
