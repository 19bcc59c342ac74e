"""A two-stage detector: backbone, feature pyramid, proposals, and heads for regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from stillhouse.models.backbones import Backbone
from stillhouse.models.detectors.output import Dense
from stillhouse.models.detectors.priors import make_priors
from stillhouse.models.detectors.proposals import ProposalHead
from stillhouse.models.detectors.rcnn import FasterRCNN
from stillhouse.models.detectors.region_head import pool_regions
from stillhouse.models.detectors.two_stage import Regions, TwoStage
from stillhouse.models.fpn import FPN
from stillhouse.models.places import Places


class TwoStageDetector(nn.Module):
    """(N, C, H, W) -> TwoStage; in evaluation with the predictions for its own proposals.

    Proposals are made at all levels, regions are pooled from those of the backbone. Places: the
    stages of the backbone, and the levels `p2`, `p3`, ... of the neck.
    """

    def __init__(
        self,
        backbone: Backbone,
        neck: FPN,
        family: FasterRCNN,
        classes: int,
        heads: Sequence[nn.Module],
    ) -> None:
        super().__init__()
        self.backbone, self.neck = backbone, neck
        self.rpn = ProposalHead(neck.width, family.rpn.grid.each)
        self.heads = nn.ModuleList(heads)
        self.family, self.classes = family, classes

    @property
    def places(self) -> Places:
        """The stages of the backbone and the levels of the neck."""
        return Places(self.backbone.places("backbone"), self.neck.places("neck"))

    @property
    def pretrained_part(self) -> nn.Module:
        """The network that weights of a classifier are for."""
        return self.backbone.body

    @property
    def frozen_parts(self) -> str:
        """What of the backbone is not trained, as words of a sentence; "" for nothing."""
        return self.backbone.frozen_parts

    def forward(self, images: Tensor) -> TwoStage:
        """(N, C, H, W) -> TwoStage."""
        levels = self.neck(self.backbone(images))
        raw = self.rpn(levels)
        sizes = [(level.shape[-2], level.shape[-1]) for level in levels]
        family = self.family
        priors = make_priors(family.rpn.grid, sizes, self.neck.strides, raw.scores)
        out = TwoStage(
            (images.shape[-2], images.shape[-1]),
            tuple(levels[: len(self.backbone.strides)]),
            Dense(raw.scores, raw.boxes, priors, family.rpn),
            self,
            family,
            self.classes,
        )
        return out if self.training else replace(out, stages=family.predict(out))

    def score_regions(
        self, levels: Sequence[Tensor], boxes: Tensor, image: Tensor, stage: int
    ) -> Regions:
        """The predictions of a stage for boxes (R, 4) of images (R,)."""
        pooled = pool_regions(levels, self.backbone.strides, boxes, image)
        scored: Regions = self.heads[stage](pooled, boxes, image, self.family.deviations[stage])
        return scored
