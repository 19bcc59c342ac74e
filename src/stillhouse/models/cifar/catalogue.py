"""The networks for small images by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from stillhouse.models.cifar.mobilenet import MobileNetV2
from stillhouse.models.cifar.resnet import cifar_resnet, resnet18, resnet50
from stillhouse.models.cifar.shufflenet import ShuffleNetV1, ShuffleNetV2
from stillhouse.models.cifar.vgg import LAYERS, VGG
from stillhouse.models.cifar.wide_resnet import WideResNet
from stillhouse.models.stage_network import StageNetwork

_WIDE = ((16, 1), (16, 2), (16, 4), (28, 2), (28, 4), (40, 1), (40, 2))
_NETWORKS: Mapping[str, Callable[[int, int], StageNetwork]] = {
    **{f"resnet{depth}": partial(cifar_resnet, depth) for depth in (8, 14, 20, 32, 44, 56, 110)},
    **{f"resnet{depth}x4": partial(cifar_resnet, depth, factor=4) for depth in (8, 32)},
    "resnet18": resnet18,
    "resnet50": resnet50,
    **{f"wrn_{depth}_{k}": partial(WideResNet, depth, k) for depth, k in _WIDE},
    **{name: partial(VGG, layers) for name, layers in LAYERS.items()},
    "mobilenetv2": MobileNetV2,
    "shufflenetv1": ShuffleNetV1,
    "shufflenetv2": ShuffleNetV2,
}


def cifar_names() -> list[str]:
    """The names of all networks, family by family."""
    return list(_NETWORKS)


def cifar_network(name: str, classes: int, channels: int = 3) -> StageNetwork:
    """One of `cifar_names()` with random weights: (N, channels, H, W) -> (N, classes)."""
    return _NETWORKS[name](classes, channels)
