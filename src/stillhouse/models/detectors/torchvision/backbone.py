"""The backbone of torchvision's detectors, and the anchors of its levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from stillhouse.errors import UserError
from stillhouse.functional.dtype import upcast
from stillhouse.models.backbones import EXAMPLE
from stillhouse.models.detectors.priors import Priors
from stillhouse.models.detectors.torchvision.names import find_levels, find_stages
from stillhouse.models.places import Places
from stillhouse.models.recording import Recording, record


class TorchvisionBackbone:
    """The backbone of a model, which remains the model's own, with its feature pyramid.

    `generator` makes the anchors. Places: the stages of `backbone.body`, or of a backbone that
    returns one map, and the levels `p3`, `p4`, ... by stride.
    """

    def __init__(self, model: Any, generator: Any) -> None:
        self.model, self.generator = model, generator
        self.each = anchors_per_cell(model, generator)
        recording = record_backbone(model, generator)
        levels = as_levels(recording.output)
        output = recording.output
        self.names = tuple(output) if isinstance(output, Mapping) else ("0",)
        self.strides = tuple(EXAMPLE[0] // level.shape[-2] for level in levels)
        backbone = model.get_submodule("backbone")
        stages = find_stages(backbone, example_of(backbone))
        named = find_levels(recording.calls, levels, self.strides)
        self.places = Places(stages, named).inside("model.backbone")

    def maps(self, images: Tensor) -> dict[str, Tensor]:
        """The maps of the backbone by the names that it gives them, the largest first."""
        found = self.model.backbone(images)
        return dict(found) if isinstance(found, Mapping) else {"0": found}

    def anchors(self, images: Tensor, levels: Sequence[Tensor]) -> Priors:
        """The anchors of the model's own generator, in full precision."""
        cell = upcast(images.new_empty(()))  # a map is asked for its shape, device and dtype only
        sizes = tuple((level.shape[-2], level.shape[-1]) for level in levels)
        one_image = SimpleNamespace(tensors=images, image_sizes=[tuple(images.shape[-2:])])
        with torch.no_grad():
            boxes = self.generator(one_image, [cell.expand(1, 1, *size) for size in sizes])[0]
        parts = [
            boxes.new_full((height * width * self.each,), float(stride))
            for (height, width), stride in zip(sizes, self.strides, strict=True)
        ]
        return Priors(boxes, torch.cat(parts), sizes, self.strides, self.each)


def anchors_per_cell(model: Any, generator: Any) -> int:
    """The number of anchors at each place, which all levels must share."""
    counts = generator.num_anchors_per_location()
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


def record_backbone(model: Any, generator: Any) -> Recording:
    """One forward of the backbone on a blank image; raises UserError where it fails."""
    try:
        recording = record(model.backbone, example_of(model.backbone))
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"the backbone of {type(model).__name__} does not take images of {EXAMPLE[0]} x "
            f"{EXAMPLE[1]}: {reason}"
        ) from error
    levels, sizes = len(as_levels(recording.output)), len(generator.cell_anchors)
    if levels != sizes:
        raise UserError(
            f"the backbone of {type(model).__name__} returns {levels} maps, but its anchor "
            f"generator has sizes for {sizes}; give AnchorGenerator sizes for each map"
        )
    return recording
