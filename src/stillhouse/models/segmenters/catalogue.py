"""Networks for semantic segmentation by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from stillhouse.errors import UserError, did_you_mean
from stillhouse.models.backbones import EXAMPLE, Backbone, find_stages
from stillhouse.models.recording import record
from stillhouse.models.segmenters.deeplab import ASPP
from stillhouse.models.segmenters.dilated import DilatedBackbone
from stillhouse.models.segmenters.pspnet import PyramidPooling
from stillhouse.models.segmenters.segmenter import (
    AuxiliaryHead,
    Decoder,
    Segmenter,
    check_counts,
)
from stillhouse.models.segmenters.semantic_fpn import SemanticFPN

FAMILIES: Mapping[str, Callable[..., Decoder]] = {
    "deeplabv3": ASPP,
    "pspnet": PyramidPooling,
    "fpn": SemanticFPN,
}
DILATED = ("deeplabv3", "pspnet")
OWN_DILATION = {"output_stride", "replace_stride_with_dilation"}  # of timm, of torchvision
MOST_LEVELS = 4  # of a feature pyramid by default
DROPOUT = 0.1
CreateNetwork = Callable[..., nn.Module]  # name, classes, channels, options -> network


def make_segmenter(
    name: str,
    classes: int,
    channels: int,
    create: CreateNetwork,
    *,
    backbone: str = "timm/resnet50",
    backbone_options: Mapping[str, Any] | None = None,
    frozen: int = 0,
    frozen_norms: bool = False,
    dropout: float = DROPOUT,
    **options: Any,
) -> Segmenter:
    """A network of one of `FAMILIES` with random weights; `create` makes the backbone by name.

    `deeplabv3` and `pspnet` read the last map of the backbone, dilated to `output_stride`, and have
    an `auxiliary` head on the stage before: True, False, or its width, which is a quarter of the
    map's channels by default. `fpn` reads the maps of `strides`, by default the last four. `frozen`
    is the number of stages with fixed parameters, the stem with the first. `dropout` is that before
    each classifier. `options` are those of the decoder.
    """
    make_decoder = FAMILIES[name]
    check_options(name, options)
    if not 0 <= dropout < 1:
        raise UserError(f"segmenter/{name}: `dropout` must be in [0, 1), got {dropout}")
    for option in (backbone_options or {}).keys() & OWN_DILATION:
        raise UserError(
            f"segmenter/{name}: set output_stride, not backbone_options.{option}, so that the "
            "stages of the backbone are known"
        )
    body = create(backbone, 1, channels, **(backbone_options or {}))
    side = (backbone_options or {}).get("img_size", EXAMPLE)
    size = (side, side) if isinstance(side, int) else tuple(side)
    trunk: dict[str, Any] = {"frozen": frozen, "frozen_norms": frozen_norms, "size": size}
    known = stage_strides(body, channels, size)
    if name not in DILATED:
        strides = options.pop("strides", None) or known[-MOST_LEVELS:]
        maps = Backbone(body, strides, channels=channels, **trunk)
        return Segmenter(maps, make_decoder(maps.widths, maps.strides, **options), classes, dropout)
    auxiliary = options.pop("auxiliary", True)
    stride = options.pop("output_stride", None)
    maps = DilatedBackbone(body, known[-2:], stride, channels=channels, **trunk)
    decoder = make_decoder(maps.widths, maps.strides, **options)
    head = auxiliary_head(maps.widths, auxiliary, classes, dropout)
    return Segmenter(maps, decoder, classes, dropout, head)


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Raise UserError for an option that the family does not have."""
    common = ("backbone", "backbone_options", "frozen", "frozen_norms", "dropout")
    of_maps = ("output_stride", "auxiliary") if name in DILATED else ("strides",)
    of_decoder = list(inspect.signature(FAMILIES[name]).parameters)[2:]  # without the maps
    for option in options:
        if option not in (*of_maps, *of_decoder):
            hint = did_you_mean(option, (*common, *of_maps, *of_decoder))
            raise UserError(f"segmenter/{name} has no option {option!r}{hint}")


def stage_strides(body: nn.Module, channels: int, size: tuple[int, int]) -> list[int]:
    """The strides of the stages of a network, the smallest first."""
    example = torch.zeros(1, channels, *size)
    stages = find_stages(body, record(body, example), example)
    if not stages:
        raise UserError(
            f"{type(body).__name__} has no stages with maps, which a segmenter needs; take a "
            "convolutional network as backbone"
        )
    return sorted({stage.stride for stage in stages.values()})


def auxiliary_head(
    widths: Sequence[int], width: bool | int, classes: int, dropout: float
) -> AuxiliaryHead | None:
    """The head on the map before the last; None for a `width` of False, True is the default."""
    if width is False:
        return None
    if len(widths) < 2:
        raise UserError("an auxiliary head needs a backbone of two stages; set auxiliary=false")
    before = widths[-2]
    if width is True:
        width = max(before // 4, 1)
    check_counts("auxiliary", [width])
    return AuxiliaryHead(before, width, classes, dropout)
