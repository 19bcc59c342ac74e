"""Residual networks small enough to be trained on a laptop while one waits."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class Size:
    """How large a small network is: channels of each stage, and how much its stem shrinks."""

    widths: tuple[int, ...]
    stem_stride: int


# The parameter counts are for 100 classes, tiny and little for 10, of one channel.
SIZES: Mapping[str, Size] = {
    "tiny": Size((4, 8), stem_stride=1),  # 1 382
    "little": Size((32, 64), stem_stride=1),  # 77 290
    "small": Size((8, 16, 32), stem_stride=2),  # 22 780
    "medium": Size((16, 32, 64), stem_stride=2),  # 83 604
    "large": Size((32, 64, 128), stem_stride=2),  # 319 684
}


class SmallResNet(nn.Sequential):
    """A stem, stages of residual blocks that halve the map from the second on, a mean, a head.

    (N, channels, H, W) -> (N, classes). Taps: `stem`, `stage1` .. `stageK`, `pool` (N, C), `head`.
    """

    def __init__(
        self,
        widths: Sequence[int],
        blocks: int = 1,
        classes: int = 10,
        channels: int = 3,
        stem_stride: int = 1,
    ) -> None:
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        parts["stem"] = _stem(channels, widths[0], stem_stride)
        before = widths[0]
        for number, width in enumerate(widths, 1):
            parts[f"stage{number}"] = _stage(before, width, blocks, stride=1 if number == 1 else 2)
            before = width
        parts["pool"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        parts["head"] = nn.Linear(before, classes)
        super().__init__(parts)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class Block(nn.Module):
    """Two convolutions and a shortcut: (N, before, H, W) -> (N, width, H / stride, W / stride)."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if before != width or stride != 1:
            conv = nn.Conv2d(before, width, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(width))

    def forward(self, image: Tensor) -> Tensor:
        """(N, before, H, W) -> (N, width, H / stride, W / stride)."""
        residual = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(image)))))
        return F.relu(residual + self.shortcut(image))


def build(
    size: str, classes: int, channels: int = 3, blocks: int = 1, stem_stride: int | None = None
) -> SmallResNet:
    """One of `SIZES` by name; a stem stride of None is the one of that size."""
    known = SIZES[size]
    stride = known.stem_stride if stem_stride is None else stem_stride
    return SmallResNet(known.widths, blocks, classes, channels, stride)


def _stem(channels: int, width: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU())


def _stage(before: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    first = Block(before, width, stride)
    return nn.Sequential(first, *(Block(width, width, stride=1) for _ in range(blocks - 1)))
