"""Small detectors made of the classes of torchvision, for tests."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import (
    FCOS,
    FasterRCNN,
    MaskRCNN,
    RetinaNet,
    ssdlite320_mobilenet_v3_large,
)
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import MultiScaleRoIAlign

from stillhouse.batches import Objects

CLASSES = 4
STRIDES = (4, 8, 16)


class Pyramid(nn.Module):
    """Maps of strides 4, 8 and 16."""

    def __init__(self, width: int = 8, channels: int = 3) -> None:
        super().__init__()
        self.out_channels = width
        self.stem = nn.Sequential(nn.Conv2d(channels, width, 4, 4), nn.Tanh())
        self.middle = nn.Sequential(nn.Conv2d(width, width, 3, 2, 1), nn.Tanh())
        self.deep = nn.Sequential(nn.Conv2d(width, width, 3, 2, 1), nn.Tanh())

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        large = self.stem(images)
        middle = self.middle(large)
        return OrderedDict(large=large, middle=middle, deep=self.deep(middle))


class GroupedFCOS(FCOS):
    """A subclass of a user's own."""


def small_retinanet(width: int = 8, classes: int = CLASSES, **options: Any) -> Any:
    sizes = ((6, 9), (12, 18), (24, 36))
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 3)
    return RetinaNet(Pyramid(width), classes, anchor_generator=anchors, **options)


def small_fcos(width: int = 32, classes: int = CLASSES, **options: Any) -> Any:
    anchors = AnchorGenerator(tuple((stride,) for stride in STRIDES), ((1.0,),) * 3)
    return GroupedFCOS(Pyramid(width), classes, anchor_generator=anchors, **options)


def own_outputs(model: Any, images: Tensor) -> tuple[dict[str, Tensor], list[Tensor], list[int]]:
    """What torchvision's forward computes: head outputs, anchors of each image, level sizes."""
    features = list(model.backbone(images).values())
    shapes = [tuple(images.shape[-2:])] * len(images)
    anchors = model.anchor_generator(ImageList(images, shapes), features)
    each = model.anchor_generator.num_anchors_per_location()[0]
    return model.head(features), anchors, [each * f.shape[2] * f.shape[3] for f in features]


def listed(objects: Objects) -> list[dict[str, Tensor]]:
    """Objects as the targets of torchvision."""
    return [
        {
            "boxes": objects.boxes[objects.image == number],
            "labels": objects.labels[objects.image == number],
        }
        for number in range(objects.images)
    ]


def seeded(make: Any, *arguments: Any, **options: Any) -> Any:
    """What a maker of a network returns, with the same weights each time."""
    torch.manual_seed(0)
    return make(*arguments, **options)


def make_fcos(classes: int, channels: int, **options: Any) -> Any:
    """A factory for recipes: `torchvision_detectors:make_fcos`."""
    model = small_fcos(classes=classes, **options)
    model.backbone = Pyramid(32, channels)
    return model


def single_shot(classes: int) -> Any:
    """A factory of a detector that cannot be adapted."""
    return ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=classes)


def small_rcnn(kind: Any = FasterRCNN, classes: int = CLASSES, **options: Any) -> Any:
    """Faster R-CNN, whose first column is the background; all anchors and regions are sampled."""
    known: dict[str, Any] = {
        "rpn_anchor_generator": AnchorGenerator(((8,), (16,), (32,)), ((0.5, 1.0, 2.0),) * 3),
        "box_roi_pool": MultiScaleRoIAlign(["large", "middle"], 7, 2),
        "box_head": TwoMLPHead(8 * 49, 24),
        "box_predictor": FastRCNNPredictor(24, classes + 1),
        "rpn_batch_size_per_image": 8192,
        "box_batch_size_per_image": 8192,
        "box_positive_fraction": 1.0,
        "rpn_pre_nms_top_n_train": 60,
        "rpn_pre_nms_top_n_test": 40,
        "rpn_post_nms_top_n_train": 40,
        "rpn_post_nms_top_n_test": 30,
    }
    if kind is MaskRCNN:
        known["mask_roi_pool"] = MultiScaleRoIAlign(["large", "middle"], 14, 2)
        known["mask_head"] = nn.Identity()
        known["mask_predictor"] = nn.Identity()
    return kind(Pyramid(), **{**known, **options})
