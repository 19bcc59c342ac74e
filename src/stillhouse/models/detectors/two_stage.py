"""What a two-stage detector returns: proposals, and predictions for regions of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from stillhouse.batches import Objects
from stillhouse.errors import UserError
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

    def of_image(self, index: int) -> Regions:
        """The regions of one image, as those of a batch of it alone."""
        own = self.rows(self.image == index)
        return replace(own, image=torch.zeros_like(own.image))

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

    def score_masks(
        self, levels: Sequence[Tensor], boxes: Tensor, image: Tensor, stage: int
    ) -> Tensor:
        """The mask logits of each class for boxes (R, 4) of images (R,): -> (R, C, m, m)."""
        ...


@dataclass(frozen=True, eq=False)
class SampledMasks:
    """The masks of the P sampled regions that have an object."""

    rows: Tensor  # (P,) which of the sampled regions they are
    logits: Tensor  # (P, m, m) of the object's class
    targets: Tensor  # (P, m, m) in [0, 1], the mask of the object in the region


@dataclass(frozen=True, eq=False)
class SampledRegions:
    """The regions of one stage that a batch trains on, and the object of each."""

    regions: Regions
    labels: Tensor  # (R,) class, or C for background
    targets: Tensor  # (R, 4) the box of the object; of background the region itself
    masks: SampledMasks | None = None  # of detectors with a mask head

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

    @property
    def masked(self) -> bool:
        """Whether there are mask heads."""
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

    def segment(self, out: TwoStage, size: tuple[int, int], options: Suppression) -> Objects:
        """The detections of the only image of an output, with their masks."""
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
    order: Tensor | None = None  # (C,) the scorer's class of each class, where some were selected

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
        regions = self.scorer.score_regions(self.levels, boxes, image, stage)
        return regions if self.order is None else regions.select(self.order)

    def mask_logits(self, boxes: Tensor, image: Tensor, labels: Tensor, stage: int = 0) -> Tensor:
        """The mask of one class for any boxes, by a stage: (R, 4), (R,), (R,) -> (R, m, m).

        Raises UserError for a detector without a mask head.
        """
        if not self.family.masked:
            raise UserError(
                "the detector has no mask head; take detector/mask_rcnn, detector/cascade_mask_rcnn"
                " or a Mask R-CNN of torchvision"
            )
        maps = self.scorer.score_masks(self.levels, boxes, image, stage)
        own = labels if self.order is None else self.order[labels]
        return maps.gather(1, own[:, None, None, None].expand(-1, 1, *maps.shape[2:]))[:, 0]

    def segment(self, index: int, size: tuple[int, int], options: Suppression) -> Objects:
        """The instances of one image, the best first; see `Instances`."""
        return self.family.segment(self.of_image(index), size, options)

    def of_image(self, index: int) -> TwoStage:
        """The predictions for one image, as those of a batch of it alone."""
        stages = None if self.stages is None else tuple(x.of_image(index) for x in self.stages)
        return replace(self.rows(slice(index, index + 1)), stages=stages)

    def rows(self, index: slice | Tensor) -> TwoStage:
        """The predictions for some of the images, without those of regions."""
        levels = tuple(level[index] for level in self.levels)
        return replace(self, levels=levels, proposal=self.proposal.rows(index), stages=None)

    def select(self, index: Tensor) -> TwoStage:
        """Some classes of all predictions for regions, in the order of their indices."""
        stages = tuple(stage.select(index) for stage in self.predicted)
        order = index if self.order is None else self.order[index]
        return replace(self, stages=stages, classes=len(index), order=order)
