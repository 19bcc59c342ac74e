"""Faster R-CNN and Mask R-CNN of torchvision as two-stage detectors; masks are not used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from stillhouse.batches import Objects
from stillhouse.errors import UserError
from stillhouse.functional.dtype import upcast
from stillhouse.models.detectors.coding import Deviations
from stillhouse.models.detectors.output import Dense, Suppression
from stillhouse.models.detectors.proposals import RPN, rows
from stillhouse.models.detectors.rcnn import FasterRCNN
from stillhouse.models.detectors.torchvision.backbone import TorchvisionBackbone
from stillhouse.models.detectors.torchvision.retinanet import match_anchors
from stillhouse.models.detectors.two_stage import Regions, TwoStage
from stillhouse.models.places import Places

BETA = 1 / 9  # of the smooth L1 of both stages
UNWEIGHTED = (1.0, 1.0, 1.0, 1.0)


@dataclass(frozen=True)
class TorchvisionRPN(RPN):
    """Proposals whose anchors are matched as torchvision does."""

    def match(self, objects: Objects, anchors: Tensor) -> Tensor:
        """The object of each anchor; the best anchors of each object are positive."""
        return match_anchors(objects, anchors, self.positive, self.negative, True)


@dataclass(frozen=True)
class TorchvisionRCNN(FasterRCNN):
    """The options of a Faster R-CNN of torchvision."""

    matching: TorchvisionRPN = TorchvisionRPN()

    @classmethod
    def of(cls, model: Any) -> TorchvisionRCNN:
        """The family with the options of a torchvision model."""
        rpn, heads = model.rpn, model.roi_heads
        if tuple(rpn.box_coder.weights) != UNWEIGHTED:
            raise UserError(
                f"the box coder of the proposals of {type(model).__name__} has weights "
                f"{tuple(rpn.box_coder.weights)}, which is not supported; set them to 1"
            )
        matcher, sampler = rpn.proposal_matcher, rpn.fg_bg_sampler
        x, y, width, height = (1 / weight for weight in heads.box_coder.weights)
        deviations: Deviations = (x, y, width, height)
        top, before = rpn._post_nms_top_n, rpn._pre_nms_top_n
        return cls(
            suppression=Suppression(
                heads.score_thresh, iou=heads.nms_thresh, most=heads.detections_per_img
            ),
            overlaps=(heads.proposal_matcher.high_threshold,),
            sampled=heads.fg_bg_sampler.batch_size_per_image,
            share=heads.fg_bg_sampler.positive_fraction,
            proposals=top["testing"],
            candidates=before["testing"],
            training_proposals=top["training"],
            training_candidates=before["training"],
            deviations=(deviations,),
            beta=BETA,
            matching=TorchvisionRPN(
                suppression=Suppression(iou=rpn.nms_thresh),
                positive=matcher.high_threshold,
                negative=matcher.low_threshold,
                sampled=sampler.batch_size_per_image,
                share=sampler.positive_fraction,
                beta=BETA,
            ),
        )

    @property
    def rpn(self) -> RPN:
        """The proposals of the model."""
        return self.matching


class TorchvisionTwoStage(nn.Module):
    """A Faster R-CNN or Mask R-CNN of torchvision: (N, C, H, W), normalised -> TwoStage.

    As with TorchvisionDetector, the model stays whole in `model`, and only its parts are called.
    The background is the first of its columns and the last of the output's. `columns` are the
    columns that are the classes of the data, by default all others. Masks and key points are
    neither predicted nor trained. Places: the stages of the backbone and the levels of its pyramid.
    """

    columns: Tensor

    def __init__(self, model: nn.Module, columns: Sequence[int] | None = None) -> None:
        super().__init__()
        self.model = model
        self.family = TorchvisionRCNN.of(model)
        self.trunk = TorchvisionBackbone(model, model.get_submodule("rpn.anchor_generator"))
        predictor = model.get_submodule("roi_heads.box_predictor.cls_score")
        width = int(predictor.out_features)  # type: ignore[arg-type]
        chosen = tuple(range(1, width)) if columns is None else tuple(columns)
        self.register_buffer("columns", torch.tensor(chosen), persistent=False)

    @property
    def places(self) -> Places:
        """The stages of the backbone and the levels of its pyramid."""
        return self.trunk.places

    def forward(self, images: Tensor) -> TwoStage:
        """(N, C, H, W), normalised -> TwoStage."""
        levels = list(self.trunk.maps(images).values())
        scores, boxes = self.model.get_submodule("rpn.head")(levels)
        out = TwoStage(
            (images.shape[-2], images.shape[-1]),
            tuple(levels),
            Dense(
                torch.cat([rows(x, 1) for x in scores], 1),
                torch.cat([rows(x, 4) for x in boxes], 1),
                self.trunk.anchors(images, levels),
                self.family.rpn,
            ),
            self,
            self.family,
            len(self.columns),
        )
        return out if self.training else replace(out, stages=self.family.predict(out))

    def score_regions(
        self, levels: Sequence[Tensor], boxes: Tensor, image: Tensor, stage: int
    ) -> Regions:
        """The predictions of the only stage for boxes (R, 4) of images (R,)."""
        heads: Any = self.model.get_submodule("roi_heads")
        maps = [upcast(level) for level in levels]
        order = image.argsort(stable=True)  # torchvision takes the boxes of each image in turn
        own = boxes[order].to(maps[0].dtype)
        counts = torch.bincount(image, minlength=len(maps[0])).tolist()
        height, width = (side * self.trunk.strides[0] for side in maps[0].shape[-2:])
        named = dict(zip(self.trunk.names, maps, strict=True))
        pooled = heads.box_roi_pool(named, list(own.split(counts)), [(height, width)] * len(counts))
        scores, deltas = heads.box_predictor(heads.box_head(pooled[order.argsort()]))
        deltas = deltas.unflatten(1, (-1, 4))[:, self.columns]
        scores = torch.cat([scores[:, self.columns], scores[:, :1]], 1)
        return Regions(boxes, image, scores, deltas, self.family.deviations[0])
