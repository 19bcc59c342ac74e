"""Backbones whose deep stages are dilated."""

from __future__ import annotations

import math
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision.models import resnet50

from cases import check_each
from stillhouse.errors import UserError
from stillhouse.models import zoo
from stillhouse.models.backbones import Backbone
from stillhouse.models.segmenters.dilated import DilatedBackbone, DilatedMean

IMAGE = torch.randn(1, 3, 93, 125, dtype=torch.double)


def body(name: str) -> nn.Module:
    torch.manual_seed(0)
    return randomise(zoo.create(name, 3).eval())


def randomise(network: nn.Module) -> nn.Module:
    """Other statistics and gains of batch norms than those at the start."""
    random = torch.Generator().manual_seed(1)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor in (part.running_mean, part.bias):
                assert tensor is not None
                tensor.data.normal_(generator=random)
            for tensor in (part.running_var, part.weight):
                assert tensor is not None
                tensor.data.uniform_(0.5, 1.5, generator=random)
    return network


STRIDES = {
    "timm/resnet18": ((16, 32), 8),
    "timm/resnet18d": ((16, 32), 8),  # its shortcuts are average pools
    "torchvision/resnet18": ((16, 32), 16),
    "torchvision/mobilenet_v2": ((16, 32), 8),
    "stillhouse/small": ((4, 8), 2),
    "stillhouse/large": ((4, 8), 4),
}


def test_every_nth_place_is_that_of_the_network_itself() -> None:
    def check(name: str) -> None:
        strides, limit = STRIDES[name]
        plain = Backbone(body(name), strides).double().eval()
        dilated = DilatedBackbone(body(name), strides, limit).double().eval()
        assert dilated.strides == tuple(min(stride, limit) for stride in strides)
        assert dilated.state_dict().keys() == plain.state_dict().keys()
        with torch.no_grad():
            expected, found = plain(IMAGE), dilated(IMAGE)
        for stride, own, other in zip(strides, expected, found, strict=True):
            size = [math.ceil(side / min(stride, limit)) for side in IMAGE.shape[2:]]
            assert list(other.shape[2:]) == size
            step = max(stride // limit, 1)
            torch.testing.assert_close(other[..., ::step, ::step], own)

    check_each(check, ((name, name) for name in STRIDES))


def test_dilations_are_those_of_timm_and_of_torchvision() -> None:
    ours = DilatedBackbone(body("timm/resnet18"), (16, 32)).body
    theirs = timm.create_model("resnet18", pretrained=False, num_classes=0, output_stride=8)
    large = DilatedBackbone(body("torchvision/resnet50"), (16, 32)).body
    other = resnet50(weights=None, replace_stride_with_dilation=[False, True, True])
    for one, two in ((ours, theirs), (large, other)):
        known = geometry(two)
        assert {path: known[path] for path in geometry(one)} == geometry(one)
        assert {rate for _, rate, _ in geometry(one).values()} == {(1, 1), (2, 2), (4, 4)}


def geometry(network: nn.Module) -> dict[str, tuple[Any, Any, Any]]:
    """Stride, dilation and padding of each convolution."""
    return {
        path: (part.stride, part.dilation, part.padding)
        for path, part in network.named_modules()
        if isinstance(part, nn.Conv2d)
    }


def test_the_stages_keep_their_names() -> None:
    backbone = DilatedBackbone(body("timm/resnet18"), (16, 32))
    assert backbone.places("trunk") == {f"stage{n}": f"trunk.body.layer{n}" for n in (1, 2, 3, 4)}
    assert backbone.widths == (256, 512)


def test_a_dilated_mean_is_that_of_a_plain_loop() -> None:
    x = torch.randn(2, 3, 5, 4, dtype=torch.double)
    pools = [nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False), nn.AvgPool2d(3, 2, 1)]
    for pool, dilation in zip(pools, (1, 2), strict=True):
        window, padding = int(pool.kernel_size), int(pool.padding)
        offsets = [dilation * (step - padding) for step in range(window)]
        found = DilatedMean(pool, dilation)(x)
        assert found.shape == x.shape
        for row in range(5):
            for column in range(4):
                values: list[Tensor] = [
                    x[:, :, row + down, column + right]
                    for down in offsets
                    for right in offsets
                    if 0 <= row + down < 5 and 0 <= column + right < 4
                ]
                expected = torch.stack(values).mean(0)
                torch.testing.assert_close(found[:, :, row, column], expected)


def test_frozen_stages_stay_frozen() -> None:
    network = DilatedBackbone(body("timm/resnet18"), (16, 32), frozen=1, frozen_norms=True).train()
    fixed = {name.split(".")[1] for name, p in network.named_parameters() if not p.requires_grad}
    assert fixed == {"conv1", "bn1", "layer1"}
    assert "frozen" not in network.frozen_parts and "batch norms" in network.frozen_parts


@pytest.mark.parametrize("limit", [3, 64, 0])
def test_a_stride_that_no_stage_has_is_refused(limit: int) -> None:
    with pytest.raises(UserError, match=r"must be one of 2, 4, 8, the strides .* SmallResNet, got"):
        DilatedBackbone(zoo.create("stillhouse/small", 3), (4, 8), limit)


@pytest.mark.parametrize("name", ["torchvision/swin_t", "torchvision/vgg11_bn"])
def test_a_network_that_cannot_be_dilated_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="cannot be dilated to output_stride 8, because .* or segm"):
        DilatedBackbone(zoo.create(name, 3), (16, 32), 8)
