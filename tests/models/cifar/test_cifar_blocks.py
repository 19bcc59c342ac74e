"""The blocks of the families against their formulas, written out."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stillhouse.models.cifar.catalogue import cifar_network
from stillhouse.models.cifar.mobilenet import InvertedResidual
from stillhouse.models.cifar.shufflenet import (
    DownsampleUnitV2,
    ShuffleUnitV1,
    ShuffleUnitV2,
    channel_shuffle,
)
from stillhouse.models.cifar.vgg import PoolLargeMaps
from stillhouse.models.cifar.wide_resnet import PreActBlock


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def stirred(block: nn.Module) -> nn.Module:
    """In eval mode, with a BatchNorm that is no identity."""
    for part in block.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor in (part.weight.data, part.bias.data, part.running_mean):
                tensor.copy_(torch.randn_like(tensor))
            part.running_var.copy_(torch.rand_like(part.running_var) + 0.5)
    return block.eval()


def normal(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    mean, scale = norm.running_mean, norm.weight / (norm.running_var + norm.eps).sqrt()
    return (x - mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]


@pytest.mark.parametrize(("width", "stride"), [(4, 1), (6, 1), (4, 2)])
def test_a_wide_block_shortens_what_it_has_normalised(width: int, stride: int) -> None:
    block, x = stirred(PreActBlock(4, width, stride)), torch.randn(2, 4, 8, 8)
    active = normal(block.norm1, x).clamp(min=0)
    inner = F.conv2d(active, block.conv1.weight, stride=stride, padding=1)
    inner = F.conv2d(normal(block.norm2, inner).clamp(min=0), block.conv2.weight, padding=1)
    plain = (width, stride) == (4, 1)
    beside = x if plain else F.conv2d(active, block.shortcut.weight, stride=stride)
    torch.testing.assert_close(block(x), inner + beside)


def test_a_wide_stage_gives_a_sum_that_no_relu_has_seen() -> None:
    model, x = cifar_network("wrn_16_1", 5).eval(), torch.randn(2, 3, 32, 32)
    assert type(model.stem) is nn.Conv2d
    inner = model.stage3(model.stage2(model.stage1(model.stem(x))))
    assert float(inner.detach().min()) < 0
    expected = model.head(normal(model.final[0], inner).clamp(min=0).mean((2, 3)))
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize(("width", "stride"), [(4, 1), (6, 1), (4, 2)])
def test_an_inverted_residual_is_linear_at_its_end(width: int, stride: int) -> None:
    block, x = stirred(InvertedResidual(4, width, 3, stride)), torch.randn(2, 4, 8, 8)
    wide, _, _, deep, _, _, narrow, _ = block.body
    inner = normal(block.body[1], F.conv2d(x, wide.weight)).clamp(min=0)
    inner = F.conv2d(inner, deep.weight, stride=stride, padding=1, groups=12)
    inner = normal(block.body[4], inner).clamp(min=0)
    inner = normal(block.body[7], F.conv2d(inner, narrow.weight))
    torch.testing.assert_close(block(x), inner + x if (width, stride) == (4, 1) else inner)


def test_a_shuffle_takes_a_channel_of_each_group_in_turn() -> None:
    x = torch.arange(6.0)[None, :, None, None].expand(2, 6, 3, 5)
    assert channel_shuffle(x, 3)[0, :, 0, 0].tolist() == [0, 2, 4, 1, 3, 5]
    assert channel_shuffle(x, 2)[1, :, 2, 4].tolist() == [0, 3, 1, 4, 2, 5]
    assert channel_shuffle(x, 1).equal(x)


@pytest.mark.parametrize(("before", "width", "stride"), [(24, 60, 2), (12, 36, 2), (36, 36, 1)])
def test_a_grouped_block_is_added_or_put_beside(before: int, width: int, stride: int) -> None:
    block, x = stirred(ShuffleUnitV1(before, width, stride, groups=3)), torch.randn(2, before, 8, 8)
    groups = 1 if before == 24 else 3
    inside = (width if stride == 1 else width - before) // 4
    assert block.narrow[0].out_channels == inside
    inner = F.conv2d(x, block.narrow[0].weight, groups=groups)
    inner = channel_shuffle(normal(block.narrow[1], inner).clamp(min=0), groups)
    inner = F.conv2d(inner, block.spread[0].weight, stride=stride, padding=1, groups=inside)
    inner = normal(block.spread[1], inner).clamp(min=0)
    inner = normal(block.widen[1], F.conv2d(inner, block.widen[0].weight, groups=3))
    out = inner + x if stride == 1 else torch.cat([inner, F.avg_pool2d(x, 3, 2, 1)], 1)
    torch.testing.assert_close(block(x), out.clamp(min=0))


def test_half_of_the_channels_pass_by_a_split_block() -> None:
    block, x = stirred(ShuffleUnitV2(8)), torch.randn(2, 8, 6, 6)
    out = block(x)
    torch.testing.assert_close(out[:, ::2], x[:, :4])
    torch.testing.assert_close(out[:, 1::2], block.right(x[:, 4:]))
    kinds = [type(part).__name__ for part in block.right]
    norm = "BatchNorm2d"
    assert kinds == ["Conv2d", norm, "ReLU", "Conv2d", norm, "Conv2d", norm, "ReLU"]


def test_a_down_block_has_two_branches_of_the_whole_input() -> None:
    block, x = stirred(DownsampleUnitV2(6, 10)), torch.randn(2, 6, 8, 8)
    out = block(x)
    assert out.shape == (2, 10, 4, 4)
    torch.testing.assert_close(out[:, ::2], block.left(x))
    torch.testing.assert_close(out[:, 1::2], block.right(x))
    kinds = [type(part).__name__ for part in block.left]
    assert kinds == ["Conv2d", "BatchNorm2d", "Conv2d", "BatchNorm2d", "ReLU"]


def test_a_plain_network_pools_at_the_beginning_of_a_stage() -> None:
    model, x = cifar_network("vgg8", 5).eval(), torch.randn(2, 3, 32, 32)
    stem = model.stem(x)
    conv, norm = model.stage1[1], model.stage1[2]
    pooled = stem.unflatten(2, (16, 2)).unflatten(4, (16, 2)).amax((3, 5))
    expected = F.conv2d(pooled, conv.weight, conv.bias, padding=1)
    torch.testing.assert_close(model.stage1(stem), normal(norm, expected).clamp(min=0))


@pytest.mark.parametrize(("side", "after"), [(4, 4), (7, 7), (8, 4), (28, 14)])
def test_the_last_block_of_a_plain_network_pools_large_maps_only(side: int, after: int) -> None:
    assert PoolLargeMaps()(torch.zeros(1, 2, side, side)).shape == (1, 2, after, after)
