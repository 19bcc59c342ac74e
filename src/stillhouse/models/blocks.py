"""Building blocks of convolutional networks."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut: (N, before, H, W) -> (N, width, H / stride, W / stride)."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = conv_norm(before, width, 3, stride)
        self.relu1 = nn.ReLU()
        self.conv2, self.norm2 = conv_norm(width, width, 3)
        self.shortcut = shortcut(before, width, stride)
        self.relu2 = nn.ReLU()

    def forward(self, image: Tensor) -> Tensor:
        """(N, before, H, W) -> (N, width, H / stride, W / stride)."""
        inner = self.relu1(self.norm1(self.conv1(image)))
        out: Tensor = self.relu2(self.norm2(self.conv2(inner)) + self.shortcut(image))
        return out


class Bottleneck(nn.Module):
    """Three convolutions, the middle one a quarter as wide, and a shortcut (He et al., 2016).

    (N, before, H, W) -> (N, width, H / stride, W / stride).
    """

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = conv_norm(before, width // 4, 1)
        self.relu1 = nn.ReLU()
        self.conv2, self.norm2 = conv_norm(width // 4, width // 4, 3, stride)
        self.relu2 = nn.ReLU()
        self.conv3, self.norm3 = conv_norm(width // 4, width, 1)
        self.shortcut = shortcut(before, width, stride)
        self.relu3 = nn.ReLU()

    def forward(self, image: Tensor) -> Tensor:
        """(N, before, H, W) -> (N, width, H / stride, W / stride)."""
        inner = self.relu1(self.norm1(self.conv1(image)))
        inner = self.relu2(self.norm2(self.conv2(inner)))
        out: Tensor = self.relu3(self.norm3(self.conv3(inner)) + self.shortcut(image))
        return out


def conv_norm(
    before: int, width: int, kernel: int, stride: int = 1, groups: int = 1, bias: bool = False
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """A convolution with padding kernel // 2, and its BatchNorm: H, W -> H / stride, W / stride."""
    conv = nn.Conv2d(before, width, kernel, stride, kernel // 2, groups=groups, bias=bias)
    return conv, nn.BatchNorm2d(width)


def conv_norm_relu(
    before: int, width: int, kernel: int, stride: int = 1, groups: int = 1, bias: bool = False
) -> tuple[nn.Conv2d, nn.BatchNorm2d, nn.ReLU]:
    """A convolution with padding kernel // 2, its BatchNorm and a ReLU."""
    return *conv_norm(before, width, kernel, stride, groups, bias), nn.ReLU()


def shortcut(before: int, width: int, stride: int) -> nn.Module:
    """An identity where a block keeps the shape of its map, else a 1x1 convolution, BatchNorm."""
    if before == width and stride == 1:
        return nn.Identity()
    return nn.Sequential(*conv_norm(before, width, 1, stride))


def stack_blocks(
    block: Callable[[int, int, int], nn.Module], before: int, width: int, depth: int, stride: int
) -> nn.Sequential:
    """A sequence of `depth` blocks `block(before, width, stride)`; the first has the stride."""
    rest = (block(width, width, 1) for _ in range(depth - 1))
    return nn.Sequential(block(before, width, stride), *rest)
