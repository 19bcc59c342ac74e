"""RetinaNet and FCOS of torchvision as dense detectors, and the recognition of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from stillhouse.errors import UserError
from stillhouse.functional.dtype import upcast
from stillhouse.models.backbones import EXAMPLE
from stillhouse.models.detectors.output import Dense, Family, Suppression
from stillhouse.models.detectors.priors import Priors
from stillhouse.models.detectors.torchvision.fcos import TorchvisionFCOS
from stillhouse.models.detectors.torchvision.names import find_levels, find_stages
from stillhouse.models.detectors.torchvision.retinanet import TorchvisionRetinaNet
from stillhouse.models.places import Places
from stillhouse.models.recording import Recording, record

FAMILIES: Mapping[
    str, type[TorchvisionFCOS | TorchvisionRetinaNet]
] = {  # by an attribute that only this class of torchvision has
    "center_sampling_radius": TorchvisionFCOS,
    "proposal_matcher": TorchvisionRetinaNet,
}
PARTS = ("backbone", "head", "anchor_generator", "box_coder", "transform")
OTHERS = {  # what detectors have that give no scores of classes at anchors, and why
    "roi_heads": "it scores proposals in a second stage, and has no class scores at each anchor",
    "neg_to_pos_ratio": "the classes of an SSD share a softmax with the background",
    "bbox_embed": "it predicts from queries, which have no place on a grid",
    "bbox_predictor": "it predicts from queries, which have no place on a grid",
}
SUPPORTED = "take a RetinaNet or FCOS of torchvision, or one of `stillhouse models detector`"
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
        self.each = anchors_per_cell(model)
        chosen = getattr(model, COLUMNS, None) if columns is None else columns
        index = None if chosen is None else torch.tensor(tuple(chosen))
        self.register_buffer("columns", index, persistent=False)
        recording = record_backbone(model)
        levels = as_levels(recording.output)
        self.strides = tuple(EXAMPLE[0] // level.shape[-2] for level in levels)
        stages = find_stages(self.backbone, example_of(self.backbone))
        named = find_levels(recording.calls, levels, self.strides)
        self._places = Places(stages, named).inside("model.backbone")

    @property
    def backbone(self) -> nn.Module:
        """The backbone of the model, with its feature pyramid."""
        return self.model.get_submodule("backbone")

    @property
    def places(self) -> Places:
        """The stages of the backbone and the levels of its pyramid."""
        return self._places

    def forward(self, images: Tensor) -> Dense:
        """(N, C, H, W), normalised -> Dense."""
        levels = as_levels(self.backbone(images))
        raw = self.model.get_submodule("head")(levels)
        scores, quality = raw["cls_logits"], raw.get("bbox_ctrness")
        if self.columns is not None:
            scores = scores.index_select(-1, self.columns)
        return Dense(
            scores,
            raw["bbox_regression"],
            self._priors(images, levels),
            self.family,
            None if quality is None else quality[..., 0],
        )

    def _priors(self, images: Tensor, levels: Sequence[Tensor]) -> Priors:
        """The anchors of the model's own generator, in full precision."""
        cell = upcast(images.new_empty(()))  # a map is asked for its shape, device and dtype only
        sizes = tuple((level.shape[-2], level.shape[-1]) for level in levels)
        one_image = SimpleNamespace(tensors=images, image_sizes=[tuple(images.shape[-2:])])
        generate: Any = self.model.get_submodule("anchor_generator")
        with torch.no_grad():
            boxes = generate(one_image, [cell.expand(1, 1, *size) for size in sizes])[0]
        parts = [
            boxes.new_full((height * width * self.each,), float(stride))
            for (height, width), stride in zip(sizes, self.strides, strict=True)
        ]
        return Priors(boxes, torch.cat(parts), sizes, self.strides, self.each)


def adapt_detector(network: nn.Module) -> nn.Module:
    """A RetinaNet or FCOS of torchvision as TorchvisionDetector, any other network as it is.

    Raises UserError for detectors of other kinds, which do not give a `Dense`.
    """
    for attribute, reason in OTHERS.items():
        if hasattr(network, attribute):
            raise UserError(
                f"{type(network).__name__} cannot be used for task detection: {reason}; {SUPPORTED}"
            )
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


def anchors_per_cell(model: Any) -> int:
    """The number of anchors at each place, which all levels must share."""
    counts = model.anchor_generator.num_anchors_per_location()
    if len(set(counts)) != 1:
        raise UserError(
            f"{type(model).__name__} has {', '.join(map(str, counts))} anchors per cell by level, "
            "but its head predicts one number at all levels; give AnchorGenerator as many sizes "
            "and aspect ratios for each level"
        )
    return int(counts[0])


def as_levels(features: Any) -> list[Tensor]:
    """The maps of a backbone, the largest first: a mapping, or one map."""
    return list(features.values()) if isinstance(features, Mapping) else [features]


def example_of(backbone: nn.Module) -> Tensor:
    """A blank image of the backbone's channels, device and dtype: (1, C, H, W)."""
    convolutions = (part for part in backbone.modules() if isinstance(part, nn.Conv2d))
    first = next(convolutions, None)
    like = next(backbone.parameters(), torch.empty(0))
    return like.new_zeros(1, 3 if first is None else first.in_channels, *EXAMPLE)


def record_backbone(model: Any) -> Recording:
    """One forward of the backbone on a blank image; raises UserError where it fails."""
    try:
        recording = record(model.backbone, example_of(model.backbone))
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"the backbone of {type(model).__name__} does not take images of {EXAMPLE[0]} x "
            f"{EXAMPLE[1]}: {reason}"
        ) from error
    levels, sizes = len(as_levels(recording.output)), len(model.anchor_generator.cell_anchors)
    if levels != sizes:
        raise UserError(
            f"the backbone of {type(model).__name__} returns {levels} maps, but its anchor "
            f"generator has sizes for {sizes}; give AnchorGenerator sizes for each map"
        )
    return recording
