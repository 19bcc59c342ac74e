"""ShuffleNets for small images (Zhang et al., 2018; Ma et al., 2018)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stillhouse.models.blocks import conv_norm, conv_norm_relu, stack_blocks
from stillhouse.models.stage_network import StageNetwork

STEM = 24  # channels


class ShuffleNetV1(StageNetwork):
    """Bottlenecks of grouped 1x1 convolutions with a channel shuffle.

    (N, channels, H, W) -> (N, classes).
    """

    def __init__(self, classes: int, channels: int = 3, groups: int = 3) -> None:
        widths, depths = (STEM, 240, 480, 960), (4, 8, 4)
        block = partial(ShuffleUnitV1, groups=groups)
        stages = [
            stack_blocks(block, widths[number], widths[number + 1], depth, stride=2)
            for number, depth in enumerate(depths)
        ]
        stem = nn.Sequential(*conv_norm_relu(channels, STEM, 1))
        super().__init__(stem, stages, nn.Linear(widths[-1], classes))


class ShuffleNetV2(StageNetwork):
    """Blocks that convolve half of the channels, followed by a channel shuffle.

    (N, channels, H, W) -> (N, classes). `final` is a convolution to 1024 channels with its ReLU.
    """

    def __init__(self, classes: int, channels: int = 3) -> None:
        widths, depths, last = (STEM, 116, 232, 464), (4, 8, 4), 1024
        stages = [
            stack_blocks(_unit, widths[number], widths[number + 1], depth, stride=2)
            for number, depth in enumerate(depths)
        ]
        stem = nn.Sequential(*conv_norm_relu(channels, STEM, 1))
        final = nn.Sequential(*conv_norm_relu(widths[-1], last, 1))
        super().__init__(stem, stages, nn.Linear(last, classes), final)


class ShuffleUnitV1(nn.Module):
    """A grouped bottleneck, added to its input or, with a stride, concatenated to the pooled input.

    (N, before, H, W) -> (N, width, H / stride, W / stride).
    """

    def __init__(self, before: int, width: int, stride: int, groups: int) -> None:
        super().__init__()
        self.stride, out = stride, width - before if stride > 1 else width
        inside = out // 4
        # The first 1x1 convolution after the stem is not grouped, for it has few channels.
        self.groups = 1 if before == STEM else groups
        self.narrow = nn.Sequential(*conv_norm_relu(before, inside, 1, groups=self.groups))
        self.spread = nn.Sequential(*conv_norm_relu(inside, inside, 3, stride, groups=inside))
        self.widen = nn.Sequential(*conv_norm(inside, out, 1, groups=groups))
        self.relu = nn.ReLU()

    def forward(self, image: Tensor) -> Tensor:
        """(N, before, H, W) -> (N, width, H / stride, W / stride)."""
        inner = self.widen(self.spread(channel_shuffle(self.narrow(image), self.groups)))
        if self.stride == 1:
            out: Tensor = self.relu(inner + image)
            return out
        pooled = F.avg_pool2d(image, 3, self.stride, padding=1)
        joined: Tensor = self.relu(torch.cat([inner, pooled], 1))
        return joined


class ShuffleUnitV2(nn.Module):
    """The first half of the channels unchanged, the second convolved: (N, C, H, W) -> same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.right = _branch(width // 2, width // 2, stride=1)

    def forward(self, image: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        left, right = image.chunk(2, 1)
        return channel_shuffle(torch.cat([left, self.right(right)], 1), 2)


class DownsampleUnitV2(nn.Module):
    """Two convolved branches, concatenated: (N, before, H, W) -> (N, width, H/2, W/2)."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        half = width // 2
        self.left = nn.Sequential(
            *conv_norm(before, before, 3, stride=2, groups=before), *conv_norm_relu(before, half, 1)
        )
        self.right = _branch(before, half, stride=2)

    def forward(self, image: Tensor) -> Tensor:
        """(N, before, H, W) -> (N, width, H / 2, W / 2)."""
        return channel_shuffle(torch.cat([self.left(image), self.right(image)], 1), 2)


def channel_shuffle(image: Tensor, groups: int) -> Tensor:
    """The channels interleaved across groups: (N, C, H, W) -> (N, C, H, W)."""
    count, width, *size = image.shape
    return image.view(count, groups, width // groups, *size).transpose(1, 2).flatten(1, 2)


def _unit(before: int, width: int, stride: int) -> nn.Module:
    return ShuffleUnitV2(width) if stride == 1 else DownsampleUnitV2(before, width)


def _branch(before: int, width: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        *conv_norm_relu(before, width, 1),
        *conv_norm(width, width, 3, stride, groups=width),
        *conv_norm_relu(width, width, 1),
    )
