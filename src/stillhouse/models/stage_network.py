"""Networks that are a sequence of stem, stages, pool and head."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from torch import nn


class StageNetwork(nn.Sequential):
    """A stem, stages, an optional final module, global average pooling, a linear layer.

    (N, channels, H, W) -> (N, classes). Taps: `stem`, `stage1` .. `stageK`, `final` where there is
    one, `pool` (N, C), `head`.
    """

    def __init__(
        self,
        stem: nn.Module,
        stages: Iterable[nn.Module],
        head: nn.Linear,
        final: nn.Module | None = None,
    ) -> None:
        parts: OrderedDict[str, nn.Module] = OrderedDict(stem=stem)
        for number, stage in enumerate(stages, 1):
            parts[f"stage{number}"] = stage
        if final is not None:
            parts["final"] = final
        parts["pool"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        parts["head"] = head
        super().__init__(parts)


def init_convolutions(model: nn.Module) -> None:
    """Initialise convolutions with Kaiming normal weights in fan-out mode, and biases with 0."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def linear_head(width: int, classes: int) -> nn.Linear:
    """A linear layer with weights of N(0, 0.01^2) and biases of 0: (N, width) -> (N, classes)."""
    head = nn.Linear(width, classes)
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    return head
