"""RetinaNet and FCOS of torchvision as dense detectors, and how its detectors are recognised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stillhouse.errors import UserError
from stillhouse.models.detectors.output import Dense, Family, Suppression
from stillhouse.models.detectors.torchvision.backbone import TorchvisionBackbone
from stillhouse.models.detectors.torchvision.fcos import TorchvisionFCOS
from stillhouse.models.detectors.torchvision.rcnn import TorchvisionTwoStage
from stillhouse.models.detectors.torchvision.retinanet import TorchvisionRetinaNet
from stillhouse.models.places import Places

FAMILIES: Mapping[
    str, type[TorchvisionFCOS | TorchvisionRetinaNet]
] = {  # by an attribute that only this class of torchvision has
    "center_sampling_radius": TorchvisionFCOS,
    "proposal_matcher": TorchvisionRetinaNet,
}
PARTS = ("backbone", "head", "anchor_generator", "box_coder", "transform")
OTHERS = {  # what detectors have that give no scores of classes at anchors, and why
    "neg_to_pos_ratio": "the classes of an SSD share a softmax with the background",
    "bbox_embed": "it predicts from queries, which have no place on a grid",
    "bbox_predictor": "it predicts from queries, which have no place on a grid",
}
SUPPORTED = (
    "take a RetinaNet, FCOS or Faster R-CNN of torchvision, or one of `stillhouse models detector`"
)
COLUMNS = "class_columns"  # an attribute of the model: see TorchvisionDetector


class TorchvisionDetector(nn.Module):
    """A RetinaNet or FCOS of torchvision: (N, C, H, W) -> Dense, in training and evaluation alike.

    The model itself stays whole and unchanged in `model`, with its own anchors, losses and frozen
    layers; it may be of a subclass and have any backbone. Only its parts are called, so that its
    own forward, `compute_loss` and `transform` are not used: images are resized, normalised and
    padded where they are loaded. torchvision's models are trained with mean and standard deviation
    of ImageNet. Detections equal torchvision's, but for anchors in the padding of an image: they
    give none.

    `columns` are the columns of the logits that are the classes of the data, in their order; by
    default those of the model's attribute `class_columns`, or all. Places: the stages of
    `backbone.body`, or of a backbone that returns one map, and the levels `p3`, `p4`, ... by
    stride.
    """

    columns: Tensor | None
    family: Family

    def __init__(self, model: nn.Module, columns: Sequence[int] | None = None) -> None:
        super().__init__()
        self.model = model
        self.family = read_family(model)
        self.trunk = TorchvisionBackbone(model, model.get_submodule("anchor_generator"))
        chosen = getattr(model, COLUMNS, None) if columns is None else columns
        index = None if chosen is None else torch.tensor(tuple(chosen))
        self.register_buffer("columns", index, persistent=False)

    @property
    def places(self) -> Places:
        """The stages of the backbone and the levels of its pyramid."""
        return self.trunk.places

    def forward(self, images: Tensor) -> Dense:
        """(N, C, H, W), normalised -> Dense."""
        levels = list(self.trunk.maps(images).values())
        raw = self.model.get_submodule("head")(levels)
        scores, quality = raw["cls_logits"], raw.get("bbox_ctrness")
        if self.columns is not None:
            scores = scores.index_select(-1, self.columns)
        return Dense(
            scores,
            raw["bbox_regression"],
            self.trunk.anchors(images, levels),
            self.family,
            None if quality is None else quality[..., 0],
        )


def adapt_detector(network: nn.Module, masked: bool = False) -> nn.Module:
    """A RetinaNet, FCOS or R-CNN of torchvision as our output, any other network as it is.

    The masks of a Mask R-CNN are predicted and trained if `masked`. Raises UserError for
    detectors of other kinds.
    """
    for attribute, reason in OTHERS.items():
        if hasattr(network, attribute):
            raise UserError(
                f"{type(network).__name__} cannot be used for task detection: {reason}; {SUPPORTED}"
            )
    if hasattr(network, "roi_heads"):
        return TorchvisionTwoStage(network, getattr(network, COLUMNS, None), masked)
    known = any(hasattr(network, attribute) for attribute in FAMILIES)
    return TorchvisionDetector(network) if known else network


def read_family(model: Any) -> Family:
    """The family of a torchvision model, with its options; raises UserError for other networks."""
    missing = [part for part in PARTS if not hasattr(model, part)]
    make = next((made for mark, made in FAMILIES.items() if hasattr(model, mark)), None)
    if missing or make is None:
        absent = missing[0] if missing else " or ".join(FAMILIES)
        raise UserError(
            f"{type(model).__name__} is not a RetinaNet or FCOS of torchvision, because it has no "
            f"attribute {absent}; {SUPPORTED}"
        )
    suppression = Suppression(
        model.score_thresh, model.topk_candidates, model.nms_thresh, model.detections_per_img
    )
    return make.of(model, suppression)
