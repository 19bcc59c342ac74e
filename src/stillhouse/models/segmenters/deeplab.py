"""The decoder of DeepLabV3 (Chen et al., 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stillhouse.models.blocks import conv_norm_relu
from stillhouse.models.segmenters.pooled import pooled_conv
from stillhouse.models.segmenters.segmenter import MIN_WIDTH, Decoder, check_counts
from stillhouse.models.stage_network import init_convolutions

RATES = (96, 192, 288)  # in pixels of the image: 12, 24 and 36 cells of a map of stride 8
MAX_WIDTH = 256


class ASPP(Decoder):
    """Atrous spatial pyramid pooling of the last map, a projection, and a 3x3 convolution.

    Branches of `width` channels: a 1x1 convolution, a 3x3 convolution for each dilation of `rates`,
    and the mean of the whole map. `width` is by default a quarter of the map's channels, from 16 to
    256: 128 for ResNet-18. `rates` are by default 12, 24 and 36 at a stride of 8, half of that at
    16. `projection_dropout` follows the projection.
    """

    def __init__(
        self,
        widths: Sequence[int],
        strides: Sequence[int],
        *,
        width: int | None = None,
        rates: Sequence[int] | None = None,
        projection_dropout: float = 0.5,
    ) -> None:
        super().__init__()
        before = widths[-1]
        if width is None:
            width = min(max(before // 4, MIN_WIDTH), MAX_WIDTH)
        if rates is None:
            rates = [max(rate // strides[-1], 1) for rate in RATES]
        check_counts("width", [width])
        check_counts("rates", rates)
        self.width = width
        branches = [nn.Sequential(*conv_norm_relu(before, width, 1))]
        branches += [dilated_conv(before, width, rate) for rate in rates]
        self.branches = nn.ModuleList(branches)
        self.pooled = pooled_conv(before, width, 1)
        together = (len(branches) + 1) * width
        self.project = nn.Sequential(
            *conv_norm_relu(together, width, 1), nn.Dropout(projection_dropout)
        )
        self.head = nn.Sequential(*conv_norm_relu(width, width, 3))
        init_convolutions(self)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps, of which the last is read -> (N, width, h, w)."""
        x = maps[-1]
        parts = [branch(x) for branch in self.branches]
        parts.append(self.pooled(x).expand(-1, -1, *x.shape[-2:]))
        out: Tensor = self.head(self.project(torch.cat(parts, 1)))
        return out


def dilated_conv(before: int, width: int, rate: int) -> nn.Sequential:
    """A 3x3 convolution of a dilation, BatchNorm, ReLU: (N, before, h, w) -> (N, width, h, w)."""
    conv = nn.Conv2d(before, width, 3, padding=rate, dilation=rate, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU())
