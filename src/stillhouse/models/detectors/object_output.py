"""What networks that find objects return."""

from __future__ import annotations

from stillhouse.models.detectors.cell_masks import CellMasks
from stillhouse.models.detectors.output import Dense
from stillhouse.models.detectors.two_stage import TwoStage

ObjectOutput = Dense | TwoStage | CellMasks
