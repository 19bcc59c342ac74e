"""What a two-stage detector returns: proposals, and predictions for regions of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from stillhouse.batches import Objects
from stillhouse.functional.dtype import upcast
from stillhouse.models.detectors.coding import UNIT, Deviations, decode_deltas
from stillhouse.models.detectors.output import Dense, Suppression
from stillhouse.types import Terms

NOTHING = -16.0  # the log-odds of a class in an image without regions


@dataclass(frozen=True, eq=False)
class Regions:
    """The predictions of one head for R regions, in the order of their images."""

    boxes: Tensor  # (R, 4) x1, y1, x2, y2 in pixels
    image: Tensor  # (R,) index of the image
    scores: Tensor  # (R, C + 1) logits, the background last
    deltas: Tensor  # (R, C, 4), or (R, 1, 4) of all classes together
    deviations: Deviations = UNIT  # of the deltas

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def classes(self) -> int:
        """The number of classes, without the background."""
        return self.scores.shape[-1] - 1

    @property
    def decoded(self) -> Tensor:
        """The refined boxes: -> (R, C, 4) or (R, 1, 4)."""
        return decode_deltas(self.deltas, self.boxes[:, None], self.deviations)

    def boxes_of(self, classes: Tensor) -> Tensor:
        """The refined box of one class of each region: (R,) int64 -> (R, 4)."""
        decoded = self.decoded
        place = classes if decoded.shape[1] > 1 else torch.zeros_like(classes)
        return decoded.gather(1, place[:, None, None].expand(-1, 1, 4))[:, 0]

    def rows(self, index: Tensor) -> Regions:
        """Some of the regions: (K,) int64, or (R,) bool."""
        return Regions(
            self.boxes[index],
            self.image[index],
            self.scores[index],
            self.deltas[index],
            self.deviations,
        )

    def select(self, index: Tensor) -> Regions:
        """Some classes, in the order of their indices (K,), and the background."""
        scores = torch.cat([self.scores[:, index], self.scores[:, -1:]], 1)
        deltas = self.deltas if self.deltas.shape[1] == 1 else self.deltas[:, index]
        return replace(self, scores=scores, deltas=deltas)


class RegionScorer(Protocol):
    """The heads of a two-stage detector."""

    def score_regions(
        self, levels: Sequence[Tensor], boxes: Tensor, image: Tensor, stage: int
    ) -> Regions:
        """The predictions of a stage for boxes (R, 4) of images (R,)."""
        ...


@dataclass(frozen=True, eq=False)
class SampledRegions:
    """The regions of one stage that a batch trains on, and the object of each."""

    regions: Regions
    labels: Tensor  # (R,) class, or C for background
    targets: Tensor  # (R, 4) the box of the object; of background the region itself

    @property
    def positive(self) -> Tensor:
        """Which regions have an object: -> (R,) bool."""
        return self.labels < self.regions.classes


@dataclass(frozen=True, eq=False)
class TwoStageAssignment:
    """What the proposals and each stage are trained on."""

    proposal: object  # the assignment of the dense part
    stages: tuple[SampledRegions, ...]


class TwoStageFamily(Protocol):
    """A kind of two-stage detector: its options, assignment and losses."""

    @property
    def suppression(self) -> Suppression:
        """The options of suppression."""
        ...

    def assign(self, out: TwoStage, objects: Objects) -> TwoStageAssignment:
        """Sample anchors and regions, and score these."""
        ...

    def terms(self, out: TwoStage, assigned: TwoStageAssignment) -> Terms:
        """The loss terms of one batch."""
        ...

    def predict(self, out: TwoStage) -> tuple[Regions, ...]:
        """The predictions of all stages for the detector's own proposals."""
        ...


@dataclass(frozen=True, eq=False)
class TwoStage:
    """The predictions of a two-stage detector for N images and C classes.

    In evaluation, `stages` are the predictions of all stages for the detector's own proposals. In
    training they are None, because regions are sampled when the objects are known.
    """

    size: tuple[int, int]  # height and width of the images
    levels: tuple[Tensor, ...]
    proposal: Dense  # one class: an object or not
    scorer: RegionScorer
    family: TwoStageFamily
    classes: int
    stages: tuple[Regions, ...] | None = None

    def __len__(self) -> int:
        return len(self.proposal.scores)

    @property
    def strides(self) -> tuple[int, ...]:
        """Those of all levels."""
        return self.proposal.priors.strides

    @property
    def predicted(self) -> tuple[Regions, ...]:
        """The predictions of all stages for its own proposals, made now if they are not there."""
        return self.family.predict(self) if self.stages is None else self.stages

    def assign(self, objects: Objects) -> TwoStageAssignment:
        """The object of sampled anchors and regions."""
        return self.family.assign(self, objects)

    def terms(self, assigned: TwoStageAssignment) -> Terms:
        """The loss terms of the family."""
        return self.family.terms(self, assigned)

    def class_logits(self) -> Tensor:
        """The highest log-odds of each class in each image, NOTHING without a region: -> (N, C)."""
        last = self.predicted[-1]
        log = upcast(last.scores).log_softmax(-1)
        odds = log[:, :-1] - (-log[:, :-1].exp()).clamp(min=-1 + 1e-6).log1p()
        none = odds.new_full((len(self), self.classes), NOTHING)
        return none.scatter_reduce(0, last.image[:, None].expand_as(odds), odds, "amax")

    def score(self, boxes: Tensor, image: Tensor, stage: int = 0) -> Regions:
        """The predictions of a stage for any boxes: (R, 4), (R,) -> Regions."""
        return self.scorer.score_regions(self.levels, boxes, image, stage)

    def select(self, index: Tensor) -> TwoStage:
        """Some classes of the predictions for its own proposals, in the order of their indices."""
        stages = tuple(stage.select(index) for stage in self.predicted)
        return replace(self, stages=stages, classes=len(index))
