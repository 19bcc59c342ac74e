"""MobileNetV1 for large images (Howard et al., 2017)."""

from __future__ import annotations

from torch import nn

from stillhouse.models.blocks import conv_norm_relu
from stillhouse.models.stage_network import StageNetwork

# Stage by stage, the channels of each block; the first block of each but the first halves the map.
WIDTHS = ((64,), (128, 128), (256, 256), (512,) * 6, (1024, 1024))


class MobileNetV1(StageNetwork):
    """Depthwise separable convolutions in five stages of one resolution each.

    `width` multiplies the channels of every layer. (N, channels, H, W) -> (N, classes).
    """

    def __init__(self, classes: int, channels: int = 3, width: float = 1.0) -> None:
        before = int(32 * width)
        if before < 1:
            raise ValueError(f"width must be at least 1 / 32, got {width}")
        stem = nn.Sequential(*conv_norm_relu(channels, before, 3, stride=2))
        stages = []
        for number, widths in enumerate(WIDTHS):
            blocks = []
            for index, after in enumerate(int(out * width) for out in widths):
                blocks.append(_separable(before, after, stride=2 if number and not index else 1))
                before = after
            stages.append(nn.Sequential(*blocks))
        super().__init__(stem, stages, nn.Linear(before, classes))


def _separable(before: int, width: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        *conv_norm_relu(before, before, 3, stride, groups=before), *conv_norm_relu(before, width, 1)
    )
