"""The mask head of two-stage detectors (He et al., 2017): one map for each class."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from stillhouse.errors import UserError


class MaskHead(nn.Module):
    """3x3 convolutions with ReLU, a transposed one that doubles the side, and a map for each class.

    Regions are pooled to `side` by `side` cells, and masks have twice as many. `depth` is the
    number of 3x3 convolutions.
    """

    def __init__(
        self, before: int, classes: int, *, width: int = 256, depth: int = 4, side: int = 14
    ) -> None:
        super().__init__()
        for name, value, least in (("width", width, 1), ("side", side, 1), ("depth", depth, 0)):
            if value < least:
                raise UserError(f"`{name}` of the mask head must be at least {least}, got {value}")
        self.side = side
        widths = [before, *[width] * depth]
        self.convs = nn.ModuleList(nn.Conv2d(wide, width, 3, padding=1) for wide in widths[:depth])
        self.upsample = nn.ConvTranspose2d(widths[-1], width, 2, 2)
        self.maps = nn.Conv2d(width, classes, 1)
        for layer in (*self.convs, self.upsample):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.maps.weight, std=0.001)  # masks of 0.5, whatever the number of classes
        assert self.maps.bias is not None
        nn.init.zeros_(self.maps.bias)

    def forward(self, pooled: Tensor) -> Tensor:
        """(R, before, side, side) -> (R, classes, 2 side, 2 side) logits."""
        x = pooled
        for conv in self.convs:
            x = F.relu(conv(x))
        logits: Tensor = self.maps(F.relu(self.upsample(x)))
        return logits
