"""Faster R-CNN and Mask R-CNN of torchvision as two-stage detectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillhouse.batches import Objects
from stillhouse.errors import UserError
from stillhouse.functional.boxes import centre
from stillhouse.functional.dtype import upcast
from stillhouse.models.detectors.coding import Deviations
from stillhouse.models.detectors.output import Dense, Suppression
from stillhouse.models.detectors.proposals import RPN, rows
from stillhouse.models.detectors.rcnn import FasterRCNN
from stillhouse.models.detectors.region_masks import crop_masks, paste_masks
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
    """The options of a Faster R-CNN or Mask R-CNN of torchvision.

    Targets of masks are the shares of cells, of boxes half a pixel off, and masks are pasted into
    boxes of whole pixels.
    """

    matching: TorchvisionRPN = TorchvisionRPN()

    @classmethod
    def of(cls, model: Any, masked: bool = False) -> TorchvisionRCNN:
        """The family with the options of a torchvision model, its masks only if `masked`."""
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
            masked=masked and heads.has_mask(),
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

    def crop(self, masks: Tensor, boxes: Tensor, index: Tensor, side: int) -> Tensor:
        """What the masks of regions learn, as in `crop_masks`."""
        return crop_masks(masks, boxes, index, side, aligned=False)

    def paste(self, shares: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """The masks of boxes as pixels of an image, as in `paste_masks`."""
        cells = shares.shape[-1] + 2  # with a border of empty cells
        half = (boxes[:, 2:] - boxes[:, :2]) / 2 * (cells / shares.shape[-1])
        low, high = (centre(boxes) - half).trunc(), (centre(boxes) + half).trunc() + 1
        return paste_masks(F.pad(shares, (1, 1, 1, 1)), torch.cat([low, high], 1), size)


class TorchvisionTwoStage(nn.Module):
    """A Faster R-CNN or Mask R-CNN of torchvision: (N, C, H, W), normalised -> TwoStage.

    As with TorchvisionDetector, the model stays whole in `model`, and only its parts are called.
    The background is the first of its columns and the last of the output's. `columns` are the
    columns that are the classes of the data, by default all others. Masks are predicted and
    trained if `masked`, and where the model has them; key points never are. Places: the stages of
    the backbone and the levels of its pyramid.
    """

    columns: Tensor

    def __init__(
        self, model: nn.Module, columns: Sequence[int] | None = None, masked: bool = False
    ) -> None:
        super().__init__()
        self.model = model
        self.family = TorchvisionRCNN.of(model, masked)
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
        pooled = self.pool(heads.box_roi_pool, levels, boxes, image)
        scores, deltas = heads.box_predictor(heads.box_head(pooled))
        deltas = deltas.unflatten(1, (-1, 4))[:, self.columns]
        scores = torch.cat([scores[:, self.columns], scores[:, :1]], 1)
        return Regions(boxes, image, scores, deltas, self.family.deviations[0])

    def score_masks(
        self, levels: Sequence[Tensor], boxes: Tensor, image: Tensor, stage: int
    ) -> Tensor:
        """The mask logits of each class for boxes (R, 4) of images (R,): -> (R, C, m, m)."""
        heads: Any = self.model.get_submodule("roi_heads")
        pooled = self.pool(heads.mask_roi_pool, levels, boxes, image)
        maps: Tensor = heads.mask_predictor(heads.mask_head(pooled))
        return maps[:, self.columns]

    def pool(self, pooler: Any, levels: Sequence[Tensor], boxes: Tensor, image: Tensor) -> Tensor:
        """Regions by a pooler of the model, in the order of the boxes: -> (R, K, side, side)."""
        maps = [upcast(level) for level in levels]
        order = image.argsort(stable=True)  # torchvision takes the boxes of each image in turn
        own = boxes[order].to(maps[0].dtype)
        counts = torch.bincount(image, minlength=len(maps[0])).tolist()
        height, width = (side * self.trunk.strides[0] for side in maps[0].shape[-2:])
        named = dict(zip(self.trunk.names, maps, strict=True))
        pooled: Tensor = pooler(named, list(own.split(counts)), [(height, width)] * len(counts))
        return pooled[order.argsort()]
