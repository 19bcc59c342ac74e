"""A two-stage detector: backbone, feature pyramid, proposals, and heads for regions and masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from stillhouse.models.backbones import Backbone
from stillhouse.models.detectors.detector import PyramidNetwork
from stillhouse.models.detectors.mask_head import MaskHead
from stillhouse.models.detectors.output import Dense
from stillhouse.models.detectors.proposals import ProposalHead
from stillhouse.models.detectors.rcnn import FasterRCNN
from stillhouse.models.detectors.region_head import RegionHead, pool_regions
from stillhouse.models.detectors.two_stage import Regions, TwoStage
from stillhouse.models.fpn import FPN


class TwoStageDetector(PyramidNetwork):
    """(N, C, H, W) -> TwoStage; in evaluation with the predictions for its own proposals.

    Proposals are made at all levels, regions are pooled from those of the backbone.
    """

    def __init__(
        self,
        backbone: Backbone,
        neck: FPN,
        family: FasterRCNN,
        classes: int,
        heads: Sequence[RegionHead],
        mask_heads: Sequence[MaskHead] = (),
    ) -> None:
        super().__init__(backbone, neck)
        self.rpn = ProposalHead(neck.width, family.rpn.grid.each)
        self.heads = nn.ModuleList(heads)
        self.mask_heads = nn.ModuleList(mask_heads)
        self.family, self.classes = family, classes

    def forward(self, images: Tensor) -> TwoStage:
        """(N, C, H, W) -> TwoStage."""
        out = self.predict(self.make_levels(images), (images.shape[-2], images.shape[-1]))
        return out if self.training else replace(out, stages=self.family.predict(out))

    def predict(self, levels: list[Tensor], size: tuple[int, int]) -> TwoStage:
        """The proposals for maps of all levels, L x (N, C, H, W), of images of one size."""
        family = self.family
        raw = self.rpn(levels)
        priors = self.make_priors(family.rpn.grid, levels)
        return TwoStage(
            size,
            tuple(levels[: len(self.backbone.strides)]),
            Dense(raw.scores, raw.boxes, priors, family.rpn),
            self,
            family,
            self.classes,
        )

    def score_regions(
        self, levels: Sequence[Tensor], boxes: Tensor, image: Tensor, stage: int
    ) -> Regions:
        """The predictions of a stage for boxes (R, 4) of images (R,)."""
        head = self.heads[stage]
        assert isinstance(head, RegionHead)
        pooled = pool_regions(levels, self.backbone.strides, boxes, image, head.side)
        scored: Regions = head(pooled, boxes, image, self.family.deviations[stage])
        return scored

    def score_masks(
        self, levels: Sequence[Tensor], boxes: Tensor, image: Tensor, stage: int
    ) -> Tensor:
        """The mask logits of each class for boxes (R, 4) of images (R,): -> (R, C, m, m)."""
        head = self.mask_heads[stage]
        assert isinstance(head, MaskHead)
        logits: Tensor = head(pool_regions(levels, self.backbone.strides, boxes, image, head.side))
        return logits
