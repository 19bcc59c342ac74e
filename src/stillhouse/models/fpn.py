"""Feature pyramid networks (Lin et al., 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from stillhouse.errors import UserError

Extra = Literal["c5", "p5", "pool"]
GROUPS = 32  # of group norm, in the neck and in heads


class ConvNorm(nn.Module):
    """A convolution `conv` and an optional group norm: (N, before, H, W) -> (N, width, h, w)."""

    def __init__(self, before: int, width: int, kernel: int, stride: int, norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, width, kernel, stride, kernel // 2, bias=not norm)
        self.norm = group_norm(width) if norm else None
        nn.init.xavier_uniform_(self.conv.weight)
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, before, H, W) -> (N, width, h, w)."""
        y: Tensor = self.conv(x)
        return y if self.norm is None else self.norm(y)


def group_norm(width: int) -> nn.GroupNorm:
    """A group norm of 32 groups, or of as many as divide a narrower width."""
    groups = next(count for count in range(min(GROUPS, width), 0, -1) if width % count == 0)
    return nn.GroupNorm(groups, width)


class FPN(nn.Module):
    """Maps of a backbone -> maps of one width, by level; each level has the next larger one added.

    Levels `p3`, `p4`, ... are modules of these names, after the logarithm of their stride: those of
    the backbone, then `extra` more, each of half the size, made from the last map of the backbone
    (`c5`) or from the last level (`p5`), or every other cell of the level before (`pool`). With
    `relu`, there is a ReLU between two extra levels.
    """

    def __init__(
        self,
        widths: Sequence[int],
        strides: Sequence[int],
        width: int = 256,
        *,
        extra: int = 2,
        extra_from: Extra = "p5",
        relu: bool = False,
        norm: bool = False,
    ) -> None:
        super().__init__()
        if extra < 0 or width < 1:
            raise UserError(f"`width` must be positive and `extra` non-negative: {width}, {extra}")
        first = [stride.bit_length() - 1 for stride in strides]
        self.names = tuple(
            f"p{number}" for number in [*first, *range(first[-1] + 1, first[-1] + 1 + extra)]
        )
        self.strides = tuple(2 ** int(name[1:]) for name in self.names)
        self.width, self.extra_from, self.relu = width, extra_from, relu
        self._inner = len(first)
        self.lateral = nn.ModuleList(ConvNorm(w, width, 1, 1, norm) for w in widths)
        for name in self.names[: self._inner]:
            self.add_module(name, ConvNorm(width, width, 3, 1, norm))
        before = widths[-1] if extra_from == "c5" else width
        for name in self.names[self._inner :]:
            pooled = extra_from == "pool"
            level = nn.MaxPool2d(1, 2) if pooled else ConvNorm(before, width, 3, 2, norm)
            self.add_module(name, level)
            before = width

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """One map for each stage -> one map for each level, the largest first."""
        sums = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        for index in range(len(sums) - 2, -1, -1):
            larger = sums[index]
            sums[index] = larger + F.interpolate(sums[index + 1], size=larger.shape[-2:])
        levels = [self.get_submodule(n)(x) for n, x in zip(self.names, sums, strict=False)]
        last = maps[-1] if self.extra_from == "c5" else levels[-1]
        for number, name in enumerate(self.names[self._inner :]):
            last = self.get_submodule(name)(F.relu(last) if self.relu and number else last)
            levels.append(last)
        return levels

    def places(self, prefix: str) -> dict[str, str]:
        """The paths of the levels in a network that has this neck at `prefix`."""
        return {name: f"{prefix}.{name}" for name in self.names}
