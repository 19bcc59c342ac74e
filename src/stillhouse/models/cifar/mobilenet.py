"""MobileNetV2 for small images (Sandler et al., 2018)."""

from __future__ import annotations

from torch import Tensor, nn

from stillhouse.models.blocks import conv_norm, conv_norm_relu
from stillhouse.models.stage_network import StageNetwork, init_convolutions, linear_head

LAST = 1280  # channels of the last map, for any width
# For each stage, rows of (expansion, channels, number of blocks, stride of the first).
ROWS = (
    ((1, 16, 1, 1), (6, 24, 2, 1)),
    ((6, 32, 3, 2),),
    ((6, 64, 4, 2), (6, 96, 3, 1)),
    ((6, 160, 3, 2), (6, 320, 1, 1)),
)


class MobileNetV2(StageNetwork):
    """Inverted residuals: the output of a stage comes before any ReLU and has negative values.

    (N, channels, H, W) -> (N, classes). `final` is a convolution to 1280 channels with its ReLU.
    """

    def __init__(self, classes: int, channels: int = 3, width: float = 0.5) -> None:
        before = int(32 * width)
        stem = nn.Sequential(*conv_norm_relu(channels, before, 3, stride=2))
        stages = []
        for rows in ROWS:
            blocks = []
            for expansion, out, depth, stride in rows:
                for number in range(depth):
                    after = int(out * width)
                    blocks.append(
                        InvertedResidual(before, after, expansion, 1 if number else stride)
                    )
                    before = after
            stages.append(nn.Sequential(*blocks))
        final = nn.Sequential(*conv_norm_relu(before, LAST, 1))
        super().__init__(stem, stages, linear_head(LAST, classes), final)
        init_convolutions(self)


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise 3x3, 1x1 projection without ReLU; a shortcut where shapes allow.

    (N, before, H, W) -> (N, width, H / stride, W / stride).
    """

    def __init__(self, before: int, width: int, expansion: int, stride: int) -> None:
        super().__init__()
        inside = before * expansion
        self.body = nn.Sequential(
            *conv_norm_relu(before, inside, 1),
            *conv_norm_relu(inside, inside, 3, stride, groups=inside),
            *conv_norm(inside, width, 1),
        )
        self.adds = stride == 1 and before == width

    def forward(self, image: Tensor) -> Tensor:
        """(N, before, H, W) -> (N, width, H / stride, W / stride)."""
        out: Tensor = self.body(image)
        return image + out if self.adds else out
