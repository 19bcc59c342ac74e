"""The semantic branch of panoptic feature pyramid networks (Kirillov et al., 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from stillhouse.models.blocks import conv_norm_relu
from stillhouse.models.fpn import FPN
from stillhouse.models.segmenters.segmenter import MIN_WIDTH, Decoder, check_counts
from stillhouse.models.stage_network import init_convolutions

MAX_NECK = 256


class SemanticFPN(Decoder):
    """A feature pyramid, whose levels are resized to the first one and summed.

    Level i has i convolutions, at least one, each followed by ReLU and by bilinear interpolation to
    the size of the level before. Pixel centres are kept, because the maps of images of even sides
    have no corners in common. Norms are batch norms where the paper has group norms, which on few
    channels would be instance norms. `neck` are options of `FPN`; its width is by default half of
    the last map's channels, from 16 to 256. `width` is by default half of that, at least 16.
    """

    def __init__(
        self,
        widths: Sequence[int],
        strides: Sequence[int],
        *,
        width: int | None = None,
        neck: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        known = {"width": min(max(widths[-1] // 2, MIN_WIDTH), MAX_NECK), "extra": 0}
        self.neck = FPN(widths, strides, **{**known, **(neck or {})})
        self.width = max(self.neck.width // 2, MIN_WIDTH) if width is None else width
        check_counts("width", [self.width])
        self.branches = nn.ModuleList(
            stack_convolutions(self.neck.width, self.width, max(number, 1))
            for number in range(len(self.neck.strides))
        )
        init_convolutions(self.branches)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """A map for each stride -> (N, width, h, w) of the first of them."""
        levels = self.neck(maps)
        sizes = [(level.shape[-2], level.shape[-1]) for level in levels]
        total = self.enlarge(levels, sizes, 0)
        for number in range(1, len(levels)):
            total = total + self.enlarge(levels, sizes, number)
        return total

    def enlarge(
        self, levels: Sequence[Tensor], sizes: Sequence[tuple[int, int]], number: int
    ) -> Tensor:
        """One level at the size of the first: -> (N, width, h, w)."""
        x, branch = levels[number], self.branches[number]
        assert isinstance(branch, nn.Sequential)
        for step, layer in enumerate(branch, 1):
            x = layer(x)
            if number:
                size = sizes[number - step]
                x = F.interpolate(x, size, mode="bilinear", align_corners=False)
        return x

    def places(self, prefix: str) -> dict[str, str]:
        """The paths of the levels in a network that has this decoder at `prefix`."""
        return self.neck.places(f"{prefix}.neck")


def stack_convolutions(before: int, width: int, depth: int) -> nn.Sequential:
    """So many 3x3 convolutions, each with BatchNorm and ReLU."""
    layers = (conv_norm_relu(before if not n else width, width, 3) for n in range(depth))
    return nn.Sequential(*(nn.Sequential(*layer) for layer in layers))
