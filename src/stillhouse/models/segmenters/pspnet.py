"""The decoder of PSPNet (Zhao et al., 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillhouse.models.blocks import conv_norm_relu
from stillhouse.models.segmenters.pooled import pooled_conv
from stillhouse.models.segmenters.segmenter import MIN_WIDTH, Decoder, check_counts
from stillhouse.models.stage_network import init_convolutions


class PyramidPooling(Decoder):
    """Means of the last map over grids, resized and set beside it, and a 3x3 convolution.

    Each grid of `bins` x `bins` cells has the map's channels divided by the number of grids.
    `width` is by default a quarter of the map's channels, at least 16: 128 for ResNet-18, 512 for
    ResNet-101.
    """

    def __init__(
        self,
        widths: Sequence[int],
        strides: Sequence[int],
        *,
        width: int | None = None,
        bins: Sequence[int] = (1, 2, 3, 6),
    ) -> None:
        super().__init__()
        before = widths[-1]
        width = max(before // 4, MIN_WIDTH) if width is None else width
        check_counts("width", [width])
        check_counts("bins", bins)
        self.width, each = width, max(before // len(bins), 1)
        self.pools = nn.ModuleList(pooled_conv(before, each, count) for count in bins)
        self.head = nn.Sequential(*conv_norm_relu(before + len(bins) * each, width, 3))
        init_convolutions(self)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps, of which the last is read -> (N, width, h, w)."""
        x = maps[-1]
        size = (x.shape[-2], x.shape[-1])
        parts = [
            F.interpolate(pool(x), size, mode="bilinear", align_corners=True) for pool in self.pools
        ]
        out: Tensor = self.head(torch.cat([x, *parts], 1))
        return out
