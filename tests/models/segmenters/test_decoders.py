"""What stands between the maps of a backbone and the classifier."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillhouse.errors import UserError
from stillhouse.models.adapters import SafeBatchNorm2d
from stillhouse.models.segmenters.deeplab import ASPP
from stillhouse.models.segmenters.pooled import pooled_conv
from stillhouse.models.segmenters.pspnet import PyramidPooling
from stillhouse.models.segmenters.semantic_fpn import SemanticFPN

MAPS = [
    torch.randn(2, 6, 9, 13, dtype=torch.double),
    torch.randn(2, 12, 5, 7, dtype=torch.double),
]
WIDTHS, STRIDES = (6, 12), (4, 8)


def test_rates_reach_so_many_cells() -> None:
    decoder = ASPP(WIDTHS, STRIDES, width=4, rates=(2, 3)).double().eval()
    x, parts = MAPS[-1], []
    for branch in decoder.branches:
        conv = branch.get_submodule("0")
        assert isinstance(conv, nn.Conv2d)
        parts.append(normed(branch, convolve(x, conv.weight, conv.dilation[0])))
    pooled = decoder.pooled[1:](x.mean((2, 3), keepdim=True))
    together = torch.cat([*parts, pooled.expand(-1, -1, 5, 7)], 1)
    torch.testing.assert_close(decoder(MAPS), decoder.head(decoder.project(together)))
    assert [conv_of(branch).dilation[0] for branch in decoder.branches] == [1, 2, 3]


def conv_of(branch: nn.Module) -> nn.Conv2d:
    conv = branch.get_submodule("0")
    assert isinstance(conv, nn.Conv2d)
    return conv


def normed(branch: nn.Module, x: Tensor) -> Tensor:
    norm: Tensor = branch.get_submodule("1")(x)
    return norm.relu()


def convolve(x: Tensor, weight: Tensor, rate: int) -> Tensor:
    """A convolution as a loop over places and over cells that are `rate` apart."""
    height, width = x.shape[2:]
    out = x.new_zeros(len(x), len(weight), height, width)
    reach = weight.shape[-1] // 2
    cells = [(i, j) for i in range(weight.shape[-1]) for j in range(weight.shape[-1])]
    for row in range(height):
        for column in range(width):
            for i, j in cells:
                y, z = row + rate * (i - reach), column + rate * (j - reach)
                if 0 <= y < height and 0 <= z < width:
                    out[:, :, row, column] += x[:, :, y, z] @ weight[:, :, i, j].T
    return out


def test_grids_have_the_means_of_their_cells() -> None:
    bins = (1, 2, 3, 6)
    decoder = PyramidPooling(WIDTHS, STRIDES, width=4, bins=bins).double().eval()
    x = MAPS[-1]
    parts = [x]
    for count, pool in zip(bins, decoder.pools, strict=True):
        assert isinstance(pool, nn.Sequential)
        part = pool[1:](mean_of_cells(x, count))
        assert part.shape == (2, 3, count, count)
        parts.append(F.interpolate(part, (5, 7), mode="bilinear", align_corners=True))
    torch.testing.assert_close(decoder(MAPS), decoder.head(torch.cat(parts, 1)))


def mean_of_cells(x: Tensor, count: int) -> Tensor:
    """Means over a grid by a loop; a cell has every row and column that it touches."""

    def cell(number: int, side: int) -> slice:
        return slice(number * side // count, math.ceil((number + 1) * side / count))

    height, width = x.shape[2:]
    rows = [
        torch.stack(
            [x[:, :, cell(i, height), cell(j, width)].mean((2, 3)) for j in range(count)], -1
        )
        for i in range(count)
    ]
    return torch.stack(rows, -2)


def test_levels_are_enlarged_and_summed() -> None:
    widths, maps = (3, *WIDTHS), [torch.randn(2, 3, 17, 25, dtype=torch.double), *MAPS]
    decoder = SemanticFPN(widths, (2, 4, 8), width=4, neck={"width": 8}).double().eval()
    sizes = [(17, 25), (9, 13), (5, 7)]
    total = torch.zeros(2, 4, 17, 25, dtype=torch.double)
    for number, level in enumerate(decoder.neck(maps)):
        x, branch = level, decoder.branches[number]
        assert isinstance(branch, nn.Sequential) and len(branch) == max(number, 1)
        for layer, size in zip(branch, reversed(sizes[: max(number, 1)]), strict=True):
            x = F.interpolate(layer(x), size, mode="bilinear", align_corners=False)
        total += x
    torch.testing.assert_close(decoder(maps), total)
    assert decoder.places("decoder") == {f"p{n}": f"decoder.neck.p{n}" for n in (1, 2, 3)}


WIDTH_OF = {
    512: (128, 128, (256, 128)),
    2048: (256, 512, (256, 128)),
    128: (32, 32, (64, 32)),
    32: (16, 16, (16, 16)),
}


@pytest.mark.parametrize("before", WIDTH_OF)
def test_widths_follow_those_of_the_backbone(before: int) -> None:
    widths = (before // 2, before)
    decoder = SemanticFPN(widths, (16, 32))
    pyramid = decoder.neck.width, decoder.width
    assert (ASPP(widths, (8, 8)).width, PyramidPooling(widths, (8, 8)).width, pyramid) == WIDTH_OF[
        before
    ]


def test_rates_follow_the_stride() -> None:
    def rates(stride: int) -> list[int]:
        decoder = ASPP((8, 8), (stride, stride), width=2)
        return [conv_of(branch).dilation[0] for branch in decoder.branches][1:]

    assert (rates(8), rates(16), rates(4)) == ([12, 24, 36], [6, 12, 18], [24, 48, 72])


def test_the_mean_of_a_single_image_is_normed_with_the_statistics() -> None:
    norm = SafeBatchNorm2d(3).double().train()
    norm(torch.randn(4, 3, 1, 1, dtype=torch.double))
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    x = torch.randn(1, 3, 1, 1, dtype=torch.double)
    found = norm(x)
    torch.testing.assert_close(found, norm.eval()(x))
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    plain = nn.BatchNorm2d(3).double().train()
    wide = torch.randn(1, 3, 2, 1, dtype=torch.double)
    torch.testing.assert_close(SafeBatchNorm2d(3).double().train()(wide), plain(wide))
    assert pooled_conv(3, 2, 1).train()(torch.zeros(0, 3, 4, 4)).shape == (0, 2, 1, 1)


@pytest.mark.parametrize(
    ("make", "options", "text"),
    [
        (ASPP, {"width": 0}, "`width` must be positive integers, got 0"),
        (ASPP, {"rates": (6, 1.5)}, "`rates` must be positive integers, got 6, 1.5"),
        (ASPP, {"rates": ()}, "`rates` must be positive integers, got none"),
        (PyramidPooling, {"bins": (1, -2)}, "`bins` must be positive integers, got 1, -2"),
        (SemanticFPN, {"width": True}, "`width` must be positive integers, got True"),
        (SemanticFPN, {"neck": {"width": 0}}, "`width` must be positive"),
    ],
)
def test_wrong_options_are_one_sentence(make: Any, options: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text):
        make(WIDTHS, STRIDES, **options)
