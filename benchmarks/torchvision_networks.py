"""torchvision's FCOS with the backbone, pyramid and head of the embedded recipe's detectors.

A recipe names it as `torchvision_networks:small_fcos`, with this folder on PYTHONPATH.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOSHead

from stillhouse.models import zoo
from stillhouse.models.backbones import Backbone
from stillhouse.models.fpn import FPN

STRIDES, WIDTH = (4, 8), 32
SIZE = 48  # of the embedded scenes


class Levels(nn.Module):
    """A backbone and a pyramid as torchvision's detectors take them: maps by name."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = Backbone(zoo.create("stillhouse/small", 1, channels), STRIDES)
        self.fpn = FPN(self.body.widths, STRIDES, WIDTH, extra=0)
        self.out_channels = WIDTH

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        maps = self.fpn(self.body(images))
        return OrderedDict((str(index), level) for index, level in enumerate(maps))


def small_fcos(classes: int, channels: int = 3) -> Any:
    """FCOS with one convolution in each tower; its own transform changes nothing."""
    anchors = AnchorGenerator(tuple((stride,) for stride in STRIDES), ((1.0,),) * len(STRIDES))
    model = FCOS(
        Levels(channels),
        classes,
        min_size=SIZE,
        max_size=SIZE,
        image_mean=[0.0] * channels,
        image_std=[1.0] * channels,
        anchor_generator=anchors,
        head=FCOSHead(WIDTH, 1, classes, num_convs=1),
    )
    model.transform.size_divisible = 8
    return model
