"""Published losses as points of the product space.

A preset is called with tensors and returns a scalar loss; the same object is the spec in a recipe.
The unions below are the registry.
"""

from typing import Annotated, Any

from pydantic import Field

from stillhouse.objectives.presets.base import LogitPreset, Objectives, Preset
from stillhouse.objectives.presets.binary import BCD, MLD, PS, TLD, Dice, TLDDist
from stillhouse.objectives.presets.feature import (
    CWD,
    PKD,
    ChannelRelation,
    FeaturePreset,
    Mimic,
    SpatialRelation,
)
from stillhouse.objectives.presets.relation import DIST
from stillhouse.objectives.presets.softmax import ATS, DKD, KD, MSE, TTM, WTTM
from stillhouse.objectives.presets.standardized import LSKD
from stillhouse.spec import members

LogitPresetSpec = Annotated[
    KD | LSKD | TTM | WTTM | ATS | DKD | DIST | MLD | TLD | TLDDist | BCD | PS | MSE | Dice,
    Field(discriminator="name"),
]
FeaturePresetSpec = Annotated[
    CWD | Mimic | PKD | ChannelRelation | SpatialRelation, Field(discriminator="name")
]

kd, lskd, ttm, wttm, ats, dkd, dist = KD, LSKD, TTM, WTTM, ATS, DKD, DIST
mld, tld, tld_dist, bcd, ps, mse, dice = MLD, TLD, TLDDist, BCD, PS, MSE, Dice
cwd, mimic, pkd = CWD, Mimic, PKD
channel_relation, spatial_relation = ChannelRelation, SpatialRelation


def catalogue() -> dict[str, type[Any]]:
    """Every preset by its name in recipes."""
    specs = members(LogitPresetSpec) + members(FeaturePresetSpec)
    return {preset.name: preset for preset in specs}  # type: ignore[attr-defined]


__all__ = [
    "FeaturePreset",
    "FeaturePresetSpec",
    "LogitPreset",
    "LogitPresetSpec",
    "Objectives",
    "Preset",
    "ats",
    "bcd",
    "catalogue",
    "channel_relation",
    "cwd",
    "dice",
    "dist",
    "dkd",
    "kd",
    "lskd",
    "mimic",
    "mld",
    "mse",
    "pkd",
    "ps",
    "spatial_relation",
    "tld",
    "tld_dist",
    "ttm",
    "wttm",
]
