"""Wide residual networks for small images (Zagoruyko & Komodakis, 2016)."""

from __future__ import annotations

from torch import Tensor, nn

from stillhouse.models.blocks import stack_blocks
from stillhouse.models.stage_network import StageNetwork, init_convolutions


class WideResNet(StageNetwork):
    """Pre-activation blocks: the output of a stage comes before its BatchNorm and ReLU.

    (N, channels, H, W) -> (N, classes). `final` is the last BatchNorm with its ReLU.
    """

    def __init__(self, depth: int, factor: int, classes: int, channels: int = 3) -> None:
        widths = (16, 16 * factor, 32 * factor, 64 * factor)
        stem = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        stages = [
            stack_blocks(PreActBlock, widths[number], widths[number + 1], (depth - 4) // 6, stride)
            for number, stride in enumerate((1, 2, 2))
        ]
        final = nn.Sequential(nn.BatchNorm2d(widths[-1]), nn.ReLU())
        head = nn.Linear(widths[-1], classes)
        nn.init.zeros_(head.bias)
        super().__init__(stem, stages, head, final)
        init_convolutions(self)


class PreActBlock(nn.Module):
    """Two convolutions, each after BatchNorm and ReLU, and a shortcut.

    The shortcut is the identity where the block keeps the shape, otherwise a convolution of the map
    after the first ReLU. (N, before, H, W) -> (N, width, H / stride, W / stride).
    """

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.relu1 = nn.BatchNorm2d(before), nn.ReLU()
        self.conv1 = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(width), nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.shortcut: nn.Module | None = None
        if before != width or stride != 1:
            self.shortcut = nn.Conv2d(before, width, 1, stride, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        """(N, before, H, W) -> (N, width, H / stride, W / stride)."""
        active = self.relu1(self.norm1(image))
        inner: Tensor = self.conv2(self.relu2(self.norm2(self.conv1(active))))
        return inner + (image if self.shortcut is None else self.shortcut(active))
