"""Heads of dense detectors: two towers of convolutions that all levels share, and predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from stillhouse.models.fpn import group_norm
from stillhouse.models.tap_path import INPUT

PRIOR = 0.01  # the probability of every class at the start of training


class HeadOutput(NamedTuple):
    """The predictions of a head for all levels, flattened."""

    scores: Tensor  # (N, P, C)
    boxes: Tensor  # (N, P, B)
    quality: Tensor | None = None  # (N, P)
    initial: Tensor | None = None  # (N, P, B) of a first stage


class Tower(nn.Sequential):
    """3x3 convolutions with ReLU, and group norm in between by choice: (N, before, H, W).

    It can be resumed behind any of its `depth` layers, with a map from before their ReLU.
    """

    def __init__(self, before: int, width: int, depth: int, norm: bool) -> None:
        layers: list[nn.Module] = []
        for index in range(depth):
            layers.append(nn.Conv2d(width if index else before, width, 3, padding=1, bias=not norm))
            if norm:
                layers.append(group_norm(width))
            layers.append(nn.ReLU())
        super().__init__(*layers)
        self.depth, self._each = depth, 3 if norm else 2  # modules of a layer, the ReLU last

    def forward(self, x: Tensor, after: int = 0) -> Tensor:
        """(N, before, H, W) -> (N, width, H, W); with `after`, from `place(after)` on."""
        for layer in list(self)[self._first(after) :]:
            x = layer(x)
        return x

    def place(self, after: int) -> str:
        """The tap of the map before the ReLU of layer `after`, counted from 1; 0 is the input."""
        return str(self._first(after) - 1) if after else f"0{INPUT}"

    def _first(self, after: int) -> int:
        """The index of the first module that reads the map at `place(after)`."""
        return self._each * after - 1 if after else 0


class LevelScale(nn.Module):
    """A learnable factor: (...) -> (...)."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """(...) -> (...)."""
        return x * self.factor


class DenseHead(nn.Module):
    """Class scores, boxes and by choice a quality at each prior of each level.

    N x (N, before, H, W) -> HeadOutput. Box predictions of a level are multiplied by its own
    learnable scale if `scales`. The quality is read from the tower of classes or that of boxes.
    """

    def __init__(
        self,
        before: int,
        classes: int,
        levels: int,
        *,
        width: int = 256,
        depth: int = 4,
        each: int = 1,
        box: int = 4,
        norm: bool = True,
        scales: bool = True,
        quality: Literal["class", "box"] | None = None,
    ) -> None:
        super().__init__()
        self.classes, self.box_width, self.quality_from = classes, box, quality
        self.class_tower = Tower(before, width, depth, norm)
        self.box_tower = Tower(before, width, depth, norm)
        after = width if depth else before
        self.score = nn.Conv2d(after, each * classes, 3, padding=1)
        self.box = nn.Conv2d(after, each * box, 3, padding=1)
        self.quality = nn.Conv2d(after, each, 3, padding=1) if quality else None
        self.scales = nn.ModuleList(
            LevelScale() if scales else nn.Identity() for _ in range(levels)
        )
        init_head(self, self.score)

    def forward(
        self, levels: Sequence[Tensor], boxes: Sequence[Tensor] | None = None, after: int = 0
    ) -> HeadOutput:
        """The predictions of all levels.

        With `after`, `levels` and `boxes` are maps at `Tower.place(after)`, of the tower of classes
        and of that of boxes.
        """
        scores, sides, quality = [], [], []
        inputs = zip(levels, boxes or levels, self.scales, strict=True)
        for of_class, of_box, scale in inputs:
            kinds, places = self.class_tower(of_class, after), self.box_tower(of_box, after)
            scores.append(flatten(self.score(kinds), self.classes))
            sides.append(flatten(scale(self.box(places)), self.box_width))
            if self.quality is not None:
                read = kinds if self.quality_from == "class" else places
                quality.append(flatten(self.quality(read), 1)[..., 0])
        together = torch.cat(quality, 1) if quality else None
        return HeadOutput(torch.cat(scores, 1), torch.cat(sides, 1), together)


def flatten(prediction: Tensor, width: int) -> Tensor:
    """(N, A * width, H, W) -> (N, H * W * A, width), row by row and cell by cell."""
    count, channels, height, columns = prediction.shape
    priors = height * columns * channels // width  # also for a rank without images
    return prediction.permute(0, 2, 3, 1).reshape(count, priors, width)


def init_head(head: nn.Module, *scores: nn.Conv2d) -> None:
    """Convolutions from N(0, 0.01^2), biases of 0, and class scores with probability `PRIOR`."""
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.01)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for score in scores:
        assert score.bias is not None
        nn.init.constant_(score.bias, -math.log((1 - PRIOR) / PRIOR))
