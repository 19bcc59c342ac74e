"""Residual networks for small images (He et al., 2016)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from stillhouse.models.blocks import BasicBlock, Bottleneck, conv_norm_relu, stack_blocks
from stillhouse.models.stage_network import StageNetwork, init_convolutions


class ResNet(StageNetwork):
    """A stem that keeps the size of the image, and stages that halve it from the second on.

    `widths` are the channels of the stem and of each stage, `depths` the blocks of each stage.
    (N, channels, H, W) -> (N, classes).
    """

    def __init__(
        self,
        block: Callable[[int, int, int], nn.Module],
        depths: Sequence[int],
        widths: Sequence[int],
        classes: int,
        channels: int = 3,
    ) -> None:
        stem = nn.Sequential(*conv_norm_relu(channels, widths[0], 3))
        stages = [
            stack_blocks(
                block, widths[number], widths[number + 1], depth, stride=2 if number else 1
            )
            for number, depth in enumerate(depths)
        ]
        super().__init__(stem, stages, nn.Linear(widths[-1], classes))
        init_convolutions(self)


def cifar_resnet(depth: int, classes: int, channels: int = 3, factor: int = 1) -> ResNet:
    """A network of 6n + 2 layers in three stages: (N, channels, H, W) -> (N, classes).

    A `factor` other than 1 multiplies the channels of the stages; the stem then has 32 channels
    instead of 16.
    """
    widths = (16, 16, 32, 64) if factor == 1 else (32, 16 * factor, 32 * factor, 64 * factor)
    return ResNet(BasicBlock, [(depth - 2) // 6] * 3, widths, classes, channels)


def resnet18(classes: int, channels: int = 3) -> ResNet:
    """ResNet-18 with a 3x3 stem of stride 1: (N, channels, H, W) -> (N, classes)."""
    return ResNet(BasicBlock, (2, 2, 2, 2), (64, 64, 128, 256, 512), classes, channels)


def resnet50(classes: int, channels: int = 3) -> ResNet:
    """ResNet-50 with a 3x3 stem of stride 1: (N, channels, H, W) -> (N, classes)."""
    return ResNet(Bottleneck, (3, 4, 6, 3), (64, 256, 512, 1024, 2048), classes, channels)
