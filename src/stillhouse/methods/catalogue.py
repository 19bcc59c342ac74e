"""The registry of methods: unions of their specs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from stillhouse.methods.acclimation import Acclimation
from stillhouse.methods.attention import AT
from stillhouse.methods.boundary import AB
from stillhouse.methods.boxes import BCKD, ILD
from stillhouse.methods.cirkd import CIRKD
from stillhouse.methods.classmaps import CATKD
from stillhouse.methods.contrast import CRD
from stillhouse.methods.control import Control
from stillhouse.methods.correlation import CC
from stillhouse.methods.crosskd import CrossKD
from stillhouse.methods.ctkd import CTKD
from stillhouse.methods.defeat import DeFeat
from stillhouse.methods.factor import FT
from stillhouse.methods.fgd import FGD
from stillhouse.methods.fgfi import FGFI
from stillhouse.methods.fkd import FKD
from stillhouse.methods.flow import FSP
from stillhouse.methods.generation import MGD
from stillhouse.methods.gid import GID
from stillhouse.methods.hint import FitNet
from stillhouse.methods.ifvd import IFVD
from stillhouse.methods.information import VID
from stillhouse.methods.labelwise import CD, ID, L2D
from stillhouse.methods.localisation import LD
from stillhouse.methods.maskd import MasKD
from stillhouse.methods.mlkd import MLKD
from stillhouse.methods.overhaul import OFD
from stillhouse.methods.plugin import Plugin
from stillhouse.methods.ranking import RM
from stillhouse.methods.regression import SRRL
from stillhouse.methods.relational import PKT, RKD, SP
from stillhouse.methods.review import ReviewKD
from stillhouse.methods.selectivity import NST
from stillhouse.methods.setting import ComposedMethod
from stillhouse.methods.simkd import SimKD
from stillhouse.methods.skd import SKD
from stillhouse.objectives import presets
from stillhouse.objectives.published import Published
from stillhouse.spec import BY_NAME, members

ComposedSpec = Annotated[
    CTKD
    | MLKD
    | Acclimation
    | SimKD
    | FitNet
    | AT
    | OFD
    | AB
    | FT
    | VID
    | ReviewKD
    | CATKD
    | SRRL
    | MGD
    | RKD
    | PKT
    | CC
    | CRD
    | CrossKD
    | SP
    | NST
    | FSP
    | CD
    | ID
    | L2D
    | ILD
    | BCKD
    | LD
    | RM
    | FGD
    | FKD
    | FGFI
    | DeFeat
    | GID
    | MasKD
    | SKD
    | IFVD
    | CIRKD,
    Field(discriminator="name"),
]

MethodSpec = Annotated[
    Control | Plugin | presets.LogitPresetSpec | presets.FeaturePresetSpec | ComposedSpec,
    Field(discriminator="name"),
    BY_NAME,
]


def published() -> dict[str, type[Published]]:
    """The spec of every method by name: presets of the product space, then all others."""
    return {**presets.catalogue(), **composed_methods()}


def composed_methods() -> dict[str, type[ComposedMethod]]:
    """The specs of methods that are not presets of the product space, by name."""
    return {str(spec.name): spec for spec in members(ComposedSpec)}  # type: ignore[attr-defined]
