"""Residual networks that a laptop trains in minutes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from stillhouse.models.blocks import BasicBlock, conv_norm_relu, stack_blocks
from stillhouse.models.stage_network import StageNetwork, init_convolutions


@dataclass(frozen=True, slots=True)
class Size:
    """The channels of each stage of a small network, and the stride of its stem."""

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


class SmallResNet(StageNetwork):
    """A stem, stages of residual blocks that halve the map from the second on, a pool, a head.

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
        stem = nn.Sequential(*conv_norm_relu(channels, widths[0], 3, stem_stride))
        stages = [stack_blocks(BasicBlock, widths[0], widths[0], blocks, stride=1)]
        for before, width in pairwise(widths):
            stages.append(stack_blocks(BasicBlock, before, width, blocks, stride=2))
        super().__init__(stem, stages, nn.Linear(widths[-1], classes))
        init_convolutions(self)


def small_resnet(
    size: str, classes: int, channels: int = 3, blocks: int = 1, stem_stride: int | None = None
) -> SmallResNet:
    """One of `SIZES` by name with random weights; `stem_stride` None is that of the size."""
    known = SIZES[size]
    stride = known.stem_stride if stem_stride is None else stem_stride
    return SmallResNet(known.widths, blocks, classes, channels, stride)
