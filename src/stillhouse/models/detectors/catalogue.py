"""Detectors by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from torch import nn

from stillhouse.errors import UserError, did_you_mean
from stillhouse.models.backbones import EXAMPLE, Backbone
from stillhouse.models.detectors.atss import ATSS
from stillhouse.models.detectors.cell_detector import CellDetector
from stillhouse.models.detectors.detector import Detector
from stillhouse.models.detectors.fcos import FCOS
from stillhouse.models.detectors.gfocal import GFocal
from stillhouse.models.detectors.rcnn import (
    CascadeMaskRCNN,
    CascadeRCNN,
    FasterRCNN,
    MaskRCNN,
)
from stillhouse.models.detectors.reppoints import RepPoints
from stillhouse.models.detectors.retinanet import RetinaNet
from stillhouse.models.detectors.solov2 import SOLOv2
from stillhouse.models.detectors.two_stage_detector import TwoStageDetector
from stillhouse.models.fpn import FPN

FAMILIES: Mapping[str, Callable[..., Any]] = {
    "retinanet": RetinaNet,
    "fcos": FCOS,
    "atss": ATSS,
    "gfocal": GFocal,
    "reppoints": RepPoints,
    "faster_rcnn": FasterRCNN,
    "cascade_rcnn": CascadeRCNN,
    "mask_rcnn": MaskRCNN,
    "cascade_mask_rcnn": CascadeMaskRCNN,
    "solov2": SOLOv2,
}
TWO_STAGE = ("faster_rcnn", "cascade_rcnn", "mask_rcnn", "cascade_mask_rcnn")
STRIDES = dict.fromkeys((*TWO_STAGE, "solov2"), (4, 8, 16, 32))  # of others 8 to 32
PUBLISHED = ("timm/", "torchvision/")  # backbones that have weights of ImageNet
CreateNetwork = Callable[..., nn.Module]  # name, classes, channels, options -> network


def make_detector(
    name: str,
    classes: int,
    channels: int,
    create: CreateNetwork,
    *,
    backbone: str = "timm/resnet50",
    backbone_options: Mapping[str, Any] | None = None,
    strides: tuple[int, ...] | None = None,
    frozen: int | None = None,
    frozen_norms: bool | None = None,
    neck: Mapping[str, Any] | None = None,
    head: Mapping[str, Any] | None = None,
    mask_head: Mapping[str, Any] | None = None,
    **options: Any,
) -> Detector | TwoStageDetector | CellDetector:
    """A detector of one of `FAMILIES` with random weights; `create` makes the backbone by name.

    `strides` are those of the backbone's maps that the neck reads, by default those of the family,
    8 to 32 or 4 to 32. `frozen` is the number of stages with fixed parameters, the stem with the
    first; by default 1, with frozen batch norms, for a backbone that has published weights, and 0
    for others. `neck` and `head` are options of `FPN` and of the family's head, `mask_head` of the
    `MaskHead` of those that have one, `options` those of the family.
    """
    family = make_family(name, options, mask_head is not None)
    published = backbone.startswith(PUBLISHED)
    body = create(backbone, 1, channels, **(backbone_options or {}))
    size = (backbone_options or {}).get("img_size", EXAMPLE)
    trunk = Backbone(
        body,
        STRIDES.get(name, (8, 16, 32)) if strides is None else tuple(strides),
        channels=channels,
        frozen=int(published) if frozen is None else frozen,
        frozen_norms=published if frozen_norms is None else frozen_norms,
        size=(size, size) if isinstance(size, int) else tuple(size),
    )
    try:
        pyramid = FPN(trunk.widths, trunk.strides, **{**family.neck, **(neck or {})})
        if isinstance(family, FasterRCNN):
            heads = family.heads(pyramid.width, classes, **(head or {}))
            masks = family.mask_heads(pyramid.width, classes, **(mask_head or {}))
            return TwoStageDetector(trunk, pyramid, family, classes, heads, masks)
        if isinstance(family, SOLOv2):
            known = (pyramid.width, classes, pyramid.names, len(trunk.strides))
            return CellDetector(trunk, pyramid, family.head(*known, **(head or {})), family)
        tower = family.head(pyramid.width, classes, len(pyramid.strides), **(head or {}))
    except TypeError as error:
        reason = str(error).rpartition("() ")[2]
        given = f"neck={neck}, head={head}" + (f", mask_head={mask_head}" if mask_head else "")
        raise UserError(f"detector/{name}: {given}: {reason}") from error
    return Detector(trunk, pyramid, tower, family, family.grid)


def make_family(name: str, options: Mapping[str, Any], masked: bool) -> Any:
    """A family with its options; raises UserError for others, or for no mask head if `masked`."""
    make = FAMILIES[name]
    known = [field.name for field in fields(make)]  # type: ignore[arg-type]
    for option in options:
        if option not in known:
            others = ("backbone", "strides", "frozen", "neck", "head", "mask_head", *known)
            raise UserError(
                f"detector/{name} has no option {option!r}{did_you_mean(option, others)}"
            )
    family = make(**options)
    if masked and not getattr(family, "masked", False):
        raise UserError(
            f"detector/{name} has no mask head; leave out 'mask_head', or take detector/mask_rcnn"
        )
    return family
