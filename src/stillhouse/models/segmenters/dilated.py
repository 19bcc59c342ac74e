"""A convolutional backbone whose deep stages are dilated, so that their maps are not smaller."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillhouse.errors import UserError
from stillhouse.models.backbones import EXAMPLE, Backbone
from stillhouse.models.recording import Call, record

STRIDE = 8  # of the last map by default
Window = nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d


class DilatedBackbone(Backbone):
    """The maps of a backbone, with no stride above `output_stride` (Yu and Koltun, 2016).

    (N, C, H, W) -> (N, widths[i], H / s, W / s), rounded up, for each of `strides`, where s is the
    smaller of it and `output_stride`. A convolution or pool with a larger stride gets stride 1, and
    those behind it are dilated instead. Weights stay valid: with symmetric padding, every n-th
    place of a map has the value of the network without dilation. `output_stride` None is 8, or the
    stride of the last stage where that is smaller. Raises UserError for a network that cannot be
    dilated.
    """

    def __init__(
        self,
        body: nn.Module,
        strides: Sequence[int],
        output_stride: int | None = None,
        *,
        channels: int = 3,
        frozen: int = 0,
        frozen_norms: bool = False,
        size: tuple[int, int] = EXAMPLE,
    ) -> None:
        super().__init__(
            body,
            strides,
            channels=channels,
            frozen=frozen,
            frozen_norms=frozen_norms,
            size=size,
        )
        network, known = type(body).__name__, [stage.stride for stage in self.stages.values()]
        limit = min(STRIDE, known[-1]) if output_stride is None else output_stride
        if limit not in known:
            raise UserError(
                f"output_stride must be one of {', '.join(map(str, known))}, the strides of the "
                f"stages of {network}, got {output_stride!r}"
            )
        example = torch.zeros(1, channels, *size)
        dilate(body, record(body, example).calls, size[0], limit)
        self.strides = tuple(min(stride, limit) for stride in strides)
        expected = [tuple(-(-side // stride) for side in size) for stride in self.strides]
        if map_sizes(self, example) != expected:
            raise UserError(
                f"{network} cannot be dilated to output_stride {limit}, because its maps would not "
                "have that stride; take a larger output_stride, a residual network as backbone, or "
                "segmenter/fpn, which needs no dilation"
            )


def map_sizes(backbone: Backbone, example: Tensor) -> list[tuple[int, ...]] | None:
    """The height and width of each map; None where the forward fails."""
    try:
        maps = record(backbone, example).output
    except RuntimeError:
        return None
    return [tuple(one.shape[-2:]) for one in maps]


def dilate(body: nn.Module, calls: Sequence[Call], height: int, output_stride: int) -> None:
    """Replace strides beyond `output_stride` by dilation.

    `calls` are those of a forward of the network as it is, of an image of that height.
    """
    for path, call in {call.path: call for call in calls}.items():
        if not isinstance(call.module, Window) or call.input is None:
            continue
        before = stride_of(call.input.tensor.shape, height)
        after = stride_of(call.shape, height)
        if max(before, after) <= output_stride:
            continue
        factor = max(before // output_stride, 1)
        stride = min(after, output_stride) // min(before, output_stride)
        if not isinstance(call.module, nn.AvgPool2d):
            dilate_window(call.module, factor, stride)
        else:
            parent, _, child = path.rpartition(".")
            setattr(body.get_submodule(parent), child, DilatedMean(call.module, factor))


def stride_of(shape: Sequence[int], height: int) -> int:
    """The stride of a map (N, C, H, W) of an image of that height."""
    return max(height // max(shape[-2], 1), 1)


def dilate_window(module: nn.Conv2d | nn.MaxPool2d, factor: int, stride: int) -> None:
    """Set the stride of a window and spread its places by a factor."""
    module.stride = (stride, stride)
    if factor > 1 and pair(module.kernel_size) != (1, 1):
        rows, columns = pair(module.dilation)
        module.dilation = (factor * rows, factor * columns)
        if not isinstance(module.padding, str):
            above, left = pair(module.padding)
            module.padding = (factor * above, factor * left)


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """The two values of a size that may be one for both sides."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


class DilatedMean(nn.Module):
    """An average pool with a stride of 1 and dilation: (N, C, H, W) -> the same.

    Places outside of the map are not counted.
    """

    def __init__(self, pool: nn.AvgPool2d, dilation: int) -> None:
        super().__init__()
        self.dilation, self.window = dilation, pair(pool.kernel_size)
        above, left = (dilation * side for side in pair(pool.padding))
        below = dilation * (self.window[0] - 1) - above
        right = dilation * (self.window[1] - 1) - left
        self.margins = (left, right, above, below)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        window = x.new_ones(1, 1, *self.window)
        single = x.reshape(-1, 1, *x.shape[-2:])
        inside = x.new_ones(1, 1, *x.shape[-2:])
        total, count = (
            F.conv2d(F.pad(part, self.margins), window, dilation=self.dilation)
            for part in (single, inside)
        )
        return (total / count).reshape(x.shape)
