"""The networks for small images by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from stillhouse.models.cifar.mobilenet import MobileNetV2
from stillhouse.models.cifar.resnet import resnet18, resnet50, thin
from stillhouse.models.cifar.shufflenet import ShuffleNetV1, ShuffleNetV2
from stillhouse.models.cifar.vgg import LAYERS, Vgg
from stillhouse.models.cifar.wide import WideResNet
from stillhouse.models.staged import Staged

_WIDE = ((16, 1), (16, 2), (16, 4), (28, 2), (28, 4), (40, 1), (40, 2))
_NETWORKS: Mapping[str, Callable[[int, int], Staged]] = {
    **{f"resnet{depth}": partial(thin, depth) for depth in (8, 14, 20, 32, 44, 56, 110)},
    **{f"resnet{depth}x4": partial(thin, depth, factor=4) for depth in (8, 32)},
    "resnet18": resnet18,
    "resnet50": resnet50,
    **{f"wrn_{depth}_{k}": partial(WideResNet, depth, k) for depth, k in _WIDE},
    **{name: partial(Vgg, layers) for name, layers in LAYERS.items()},
    "mobilenetv2": MobileNetV2,
    "shufflenetv1": ShuffleNetV1,
    "shufflenetv2": ShuffleNetV2,
}


def names() -> list[str]:
    """All of them, family by family."""
    return list(_NETWORKS)


def build(name: str, classes: int, channels: int = 3) -> Staged:
    """One of `names()` with random weights: (N, channels, H, W) -> (N, classes)."""
    return _NETWORKS[name](classes, channels)
