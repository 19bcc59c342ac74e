"""Plain networks with BatchNorm for small images (Simonyan & Zisserman, 2015)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from stillhouse.models.blocks import conv_norm_relu
from stillhouse.models.stage_network import StageNetwork, init_convolutions, linear_head

LAYERS: Mapping[str, tuple[tuple[int, ...], ...]] = {  # channels of the layers of each block
    "vgg8": ((64,), (128,), (256,), (512,), (512,)),
    "vgg11": ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    "vgg13": ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512)),
}


class VGG(StageNetwork):
    """Blocks of convolutions: the first is the stem, the others halve the map at their beginning.

    The output of a block is the map before the next pooling. (N, channels, H, W) -> (N, classes).
    """

    def __init__(self, layers: Sequence[Sequence[int]], classes: int, channels: int = 3) -> None:
        before = ((channels,), *layers)
        stem, *blocks = (_layers(b[-1], widths) for b, widths in zip(before, layers, strict=False))
        pools = [*(nn.MaxPool2d(2) for _ in blocks[1:]), PoolLargeMaps()]
        stages = [nn.Sequential(pool, *block) for pool, block in zip(pools, blocks, strict=True)]
        super().__init__(nn.Sequential(*stem), stages, linear_head(layers[-1][-1], classes))
        init_convolutions(self)


class PoolLargeMaps(nn.Module):
    """Halves a map of 8x8 or more, and keeps a smaller one: (N, C, H, W) -> (N, C, H / 2, W / 2).

    The last block then works on maps of 4x4, for images of 32x32 and of 64x64.
    """

    def forward(self, image: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H / 2, W / 2), or unchanged."""
        return F.max_pool2d(image, 2) if min(image.shape[-2:]) >= 8 else image


def _layers(before: int, widths: Sequence[int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for width in widths:
        layers += conv_norm_relu(before, width, 3, bias=True)
        before = width
    return layers
