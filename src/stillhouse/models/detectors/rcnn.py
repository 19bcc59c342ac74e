"""Faster R-CNN (Ren et al., 2015), Cascade R-CNN (Cai & Vasconcelos, 2018), and with masks.

Mask R-CNN: He et al., 2017. Cascade Mask R-CNN: Cai & Vasconcelos, 2019.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from stillhouse.batches import Objects
from stillhouse.functional.boxes import clip_boxes, pairwise_iou
from stillhouse.functional.dtype import full_precision, upcast
from stillhouse.models.detectors.assign import Assignment
from stillhouse.models.detectors.coding import Deviations, encode_deltas
from stillhouse.models.detectors.losses import masked_sum, smooth_l1
from stillhouse.models.detectors.mask_head import MaskHead
from stillhouse.models.detectors.output import Suppression
from stillhouse.models.detectors.proposals import RPN, propose
from stillhouse.models.detectors.region_head import RegionHead
from stillhouse.models.detectors.region_masks import (
    SURE,
    crop_masks,
    mask_term,
    paste_masks,
    sample_masks,
    segment_regions,
)
from stillhouse.models.detectors.sampling import random_sample
from stillhouse.models.detectors.two_stage import (
    Regions,
    SampledRegions,
    TwoStage,
    TwoStageAssignment,
)
from stillhouse.types import Term, Terms

NARROW: Deviations = (0.1, 0.1, 0.2, 0.2)


@dataclass(frozen=True)
class FasterRCNN:
    """One stage of regions: softmax over classes and background, and a box for each class."""

    suppression: Suppression = field(default=Suppression(iou=0.5))
    scale: float = 8.0  # side of the anchors in strides
    anchors: int = 256  # of an image that are trained on
    overlaps: tuple[float, ...] = (0.5,)  # from which a region is positive, for each stage
    sampled: int = 512  # regions of an image that are trained on
    share: float = 0.25  # of positives among them, at most
    proposals: int = 1000  # of an image
    candidates: int = 1000  # of each level, before suppression
    training_proposals: int = 1000
    training_candidates: int = 2000
    deviations: tuple[Deviations, ...] = (NARROW,)  # of the deltas of each stage
    weights: tuple[float, ...] = (1.0,)  # of the losses of each stage
    agnostic: bool = False  # one box for all classes
    beta: float = 0.0  # below which the loss of a delta is quadratic
    proposal_beta: float = 0.0  # the same for the proposals
    masked: bool = False  # whether regions have a mask for each class too
    neck: ClassVar[dict[str, object]] = {"extra": 1, "extra_from": "pool"}

    @property
    def rpn(self) -> RPN:
        """The proposals of this kind of detector."""
        return RPN(scale=self.scale, sampled=self.anchors, beta=self.proposal_beta)

    def heads(self, before: int, classes: int, **options: Any) -> list[RegionHead]:
        """A head for each stage."""
        return [
            RegionHead(before, classes, agnostic=self.agnostic, **options) for _ in self.weights
        ]

    def mask_heads(self, before: int, classes: int, **options: Any) -> list[MaskHead]:
        """A mask head for each stage, or none."""
        stages = len(self.weights) if self.masked else 0
        return [MaskHead(before, classes, **options) for _ in range(stages)]

    # ------------------------------------------------------------------------------------ training

    def propose(self, out: TwoStage, training: bool) -> Objects:
        """The proposals of all images, the best of each image first."""
        candidates, most = (
            (self.training_candidates, self.training_proposals)
            if training
            else (self.candidates, self.proposals)
        )
        limits = replace(self.rpn.suppression, candidates=candidates, most=most)
        return propose(out.proposal, out.size, limits)

    def assign(self, out: TwoStage, objects: Objects) -> TwoStageAssignment:
        """Sample anchors and, in each stage, the regions of the stage before and the objects."""
        assigned = self.rpn.assign(out.proposal, objects)
        proposals = self.propose(out, training=True)
        boxes, image = proposals.boxes, proposals.image
        stages: list[SampledRegions] = []
        for stage, overlap in enumerate(self.overlaps):
            found = sample_regions(boxes, image, objects, overlap, self.sampled, self.share)
            sampled = train_on(out, found, objects, stage)
            if self.masked:
                masks = sample_masks(out, sampled, found.index, objects, stage, self.crop)
                sampled = replace(sampled, masks=masks)
            stages.append(sampled)
            if stage + 1 < len(self.overlaps):
                boxes, image = refine(stages[-1].regions.rows(found.proposed), out.size)
        return TwoStageAssignment(assigned, tuple(stages))

    def crop(self, masks: Tensor, boxes: Tensor, index: Tensor, side: int) -> Tensor:
        """What the masks of regions learn, as in `crop_masks`: cells that are covered by half."""
        return crop_masks(masks, boxes, index, side) >= SURE

    def terms(self, out: TwoStage, assigned: TwoStageAssignment) -> Terms:
        """Those of the proposals, then `class`, `box`, `mask`; of several stages `class_1` ...

        `class` and `box` are means over all sampled regions, `mask` over the pixels of positives.
        """
        assert isinstance(assigned.proposal, Assignment)
        terms = self.rpn.terms(out.proposal, assigned.proposal)
        for stage, (found, weight) in enumerate(zip(assigned.stages, self.weights, strict=True)):
            name = f"_{stage + 1}" if len(self.weights) > 1 else ""
            scored, box = region_terms(found, weight, self.beta)
            terms |= {f"class{name}": scored, f"box{name}": box}
            if found.masks is not None:
                terms[f"mask{name}"] = mask_term(found.masks, weight)
        return terms

    # ---------------------------------------------------------------------------------- evaluation

    def predict(self, out: TwoStage) -> tuple[Regions, ...]:
        """The predictions of all stages: the first for proposals, others for refined boxes."""
        proposals = self.propose(out, training=False)
        boxes, image = proposals.boxes, proposals.image
        stages: list[Regions] = []
        for stage in range(len(self.weights)):
            if stage:
                boxes, image = refine(stages[-1], out.size)
            stages.append(out.score(boxes, image, stage))
        return tuple(stages)

    def segment(self, out: TwoStage, size: tuple[int, int], options: Suppression) -> Objects:
        """The detections of the only image of an output, with their masks."""
        return segment_regions(out, size, options, len(self.weights), self.paste)

    def paste(self, shares: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """The masks of boxes as pixels of an image, as in `paste_masks`."""
        return paste_masks(shares, boxes, size)


@dataclass(frozen=True)
class CascadeRCNN(FasterRCNN):
    """Three stages, each trained on the refined regions of the one before."""

    overlaps: tuple[float, ...] = (0.5, 0.6, 0.7)
    deviations: tuple[Deviations, ...] = (
        NARROW,
        (0.05, 0.05, 0.1, 0.1),
        (0.033, 0.033, 0.067, 0.067),
    )
    weights: tuple[float, ...] = (1.0, 0.5, 0.25)
    agnostic: bool = True
    beta: float = 1.0
    proposal_beta: float = 1 / 9


@dataclass(frozen=True)
class MaskRCNN(FasterRCNN):
    """Faster R-CNN with a mask head, which learns from regions with an object."""

    masked: bool = True


@dataclass(frozen=True)
class CascadeMaskRCNN(CascadeRCNN):
    """Cascade R-CNN with a mask head in each stage; detections have the mean of their masks."""

    masked: bool = True


@dataclass(frozen=True, eq=False)
class SampledBoxes:
    """Boxes of several images, and the object of each, -1 for background."""

    boxes: Tensor  # (R, 4)
    image: Tensor  # (R,)
    index: Tensor  # (R,)
    proposed: Tensor  # (R,) bool, False for objects that were added


@torch.no_grad()
def sample_regions(
    boxes: Tensor, image: Tensor, objects: Objects, overlap: float, count: int, share: float
) -> SampledBoxes:
    """A random sample of regions and objects; positives overlap an object by `overlap` or more.

    Objects themselves are regions too, so that there are positives at the start of training.
    """
    known = objects.objects(~objects.ignored)
    proposed = torch.arange(len(boxes) + len(known.boxes), device=boxes.device) < len(boxes)
    boxes = torch.cat([boxes, known.boxes.to(boxes.dtype)])
    image = torch.cat([image, known.image])
    index = match_regions(boxes, image, objects, overlap)
    kept = random_sample(image, index >= 0, index < 0, count, share).nonzero()[:, 0]
    kept = kept[image[kept].argsort(stable=True)]
    return SampledBoxes(boxes[kept], image[kept], index[kept], proposed[kept])


def match_regions(boxes: Tensor, image: Tensor, objects: Objects, overlap: float) -> Tensor:
    """The object of the highest IoU of each region, -1 below `overlap`: (R, 4), (R,) -> (R,)."""
    if not len(objects.labels):
        return torch.full_like(image, -1)
    values = pairwise_iou(boxes, objects.boxes.to(boxes.dtype))
    other = (image[:, None] != objects.image) | objects.ignored
    best, index = values.masked_fill(other, -1.0).max(1)
    return index.where(best >= overlap, -1)


def train_on(out: TwoStage, found: SampledBoxes, objects: Objects, stage: int) -> SampledRegions:
    """The predictions of a stage for sampled boxes, with their classes and boxes to learn."""
    regions = out.score(found.boxes, found.image, stage)
    if not len(objects.labels):
        return SampledRegions(regions, torch.full_like(found.index, out.classes), found.boxes)
    known, place = found.index >= 0, found.index.clamp(min=0)
    labels = objects.labels[place].where(known, out.classes)
    targets = objects.boxes.to(found.boxes.dtype)[place].where(known[:, None], found.boxes)
    return SampledRegions(regions, labels, targets)


@torch.no_grad()
def refine(regions: Regions, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The boxes that a stage gives to the next one: -> (R, 4), (R,).

    Boxes for each class are those of the most probable class.
    """
    boxes = regions.boxes_of(regions.scores[:, :-1].argmax(1))
    return clip_boxes(boxes, float(size[0]), float(size[1])), regions.image


def region_terms(found: SampledRegions, weight: float, beta: float) -> tuple[Term, Term]:
    """Cross-entropy with background as a class, and L1 of the deltas of the object's class."""
    regions, mass = found.regions, found.labels.new_tensor(len(found.labels))
    with full_precision(regions.scores):
        scores, deltas = upcast(regions.scores), upcast(regions.deltas)
        losses = F.cross_entropy(scores, found.labels, reduction="sum")
        place = found.labels.clamp(max=deltas.shape[1] - 1)
        own = deltas.gather(1, place[:, None, None].expand(-1, 1, 4))[:, 0]
        wanted = encode_deltas(found.targets, regions.boxes, regions.deviations)
        far = smooth_l1(own - wanted.to(own.dtype), beta).sum(-1)
        total = masked_sum(far, found.positive)
    divisor = mass.to(losses.dtype)
    return Term(losses, divisor, weight), Term(total, divisor, weight)
