"""The region proposal network (Ren et al., 2015): objects of any class, by anchors."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillhouse.batches import Objects
from stillhouse.functional.boxes import clip_boxes
from stillhouse.functional.dtype import full_precision, upcast
from stillhouse.models.detectors.assign import (
    BACKGROUND,
    IGNORED,
    Assignment,
    assign_by_iou,
    make_assignment,
)
from stillhouse.models.detectors.coding import decode_deltas, encode_deltas
from stillhouse.models.detectors.losses import masked_sum, smooth_l1
from stillhouse.models.detectors.output import Dense, Suppression
from stillhouse.models.detectors.priors import AnchorGrid
from stillhouse.models.detectors.sampling import random_sample
from stillhouse.models.detectors.suppress import best_boxes, join_boxes
from stillhouse.models.detectors.tower import HeadOutput
from stillhouse.types import Term, Terms


class ProposalHead(nn.Module):
    """A 3x3 convolution with ReLU, and an objectness and a box for each anchor, at all levels."""

    def __init__(self, width: int, each: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.scores = nn.Conv2d(width, each, 1)
        self.boxes = nn.Conv2d(width, 4 * each, 1)
        for layer in (self.conv, self.scores, self.boxes):
            nn.init.normal_(layer.weight, std=0.01)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, levels: list[Tensor]) -> HeadOutput:
        """Levels (N, width, H, W) -> (N, P, 1) logits and (N, P, 4) deltas."""
        shared = [F.relu(self.conv(level)) for level in levels]
        flat = [
            torch.cat([rows(layer(x), size) for x in shared], 1)
            for layer, size in ((self.scores, 1), (self.boxes, 4))
        ]
        return HeadOutput(*flat)


def rows(maps: Tensor, size: int) -> Tensor:
    """(N, A * size, H, W) -> (N, H * W * A, size)."""
    flat: Tensor = maps.permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, size))
    return flat


@dataclass(frozen=True)
class RPN:
    """Anchors of one scale; positive from IoU 0.7, background below 0.3, sampled at random."""

    suppression: Suppression = field(default=Suppression(iou=0.7))
    scale: float = 8.0  # side of the anchors in strides
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    positive: float = 0.7
    negative: float = 0.3
    sampled: int = 256  # anchors of an image that are trained on
    share: float = 0.5  # of positives among them, at most
    beta: float = 0.0  # below which the loss of a delta is quadratic

    @property
    def grid(self) -> AnchorGrid:
        """The anchors of a cell."""
        return AnchorGrid((self.scale,), self.ratios)

    def assign(self, out: Dense, objects: Objects) -> Assignment:
        """A random sample of anchors, by IoU; those that are not sampled are ignored."""
        anchors = out.priors.boxes
        index = self.match(objects, anchors)
        flat = index.flatten()
        image = torch.arange(len(index), device=index.device).repeat_interleave(index.shape[1])
        kept = random_sample(image, flat >= 0, flat == BACKGROUND, self.sampled, self.share)
        index = flat.masked_fill(~kept, IGNORED).view_as(index)
        return make_assignment(index, objects, anchors)

    def match(self, objects: Objects, anchors: Tensor) -> Tensor:
        """The object of each anchor, before the sample: (P, 4) -> (N, P)."""
        return assign_by_iou(objects, anchors, self.positive, self.negative, self.negative)

    def terms(self, out: Dense, assigned: Assignment) -> Terms:
        """`proposal`: binary cross-entropy; `proposal_box`: L1 of deltas; both over the sample."""
        with full_precision(out.scores):
            z = upcast(out.scores[..., 0])
            target = assigned.positive.to(z.dtype)
            losses = F.binary_cross_entropy_with_logits(z, target, reduction="none")
            counted = assigned.counted.to(z.dtype)
            targets = encode_deltas(assigned.boxes, out.priors.boxes)
            far = smooth_l1(out.boxes.to(targets.dtype) - targets, self.beta).sum(-1)
            mass = counted.sum()
            return {
                "proposal": Term(masked_sum(losses, counted), mass),
                "proposal_box": Term(masked_sum(far, assigned.positive), mass),
            }

    def decode(self, out: Dense) -> Tensor:
        """-> (N, P, 4)."""
        return decode_deltas(out.boxes, out.priors.boxes)

    def probabilities(self, out: Dense) -> Tensor:
        """-> (N, P, 1)."""
        return out.scores.sigmoid()


@torch.no_grad()
def propose(out: Dense, size: tuple[int, int], limits: Suppression) -> Objects:
    """The best boxes of each image, the best first, with their probability as score.

    Of each level the best `candidates` are decoded and clipped to images of `size` (height, width);
    overlapping ones of a level are suppressed.
    """
    scores, boxes = upcast(out.scores[..., 0]), out.decoded
    chosen, level, start = [], [], 0
    for number, count in enumerate(out.priors.counts):
        part = scores[:, start : start + count]
        best = part.topk(min(limits.candidates, count), 1).indices + start
        chosen.append(best)
        level.append(torch.full_like(best, number))
        start += count
    place, group = torch.cat(chosen, 1), torch.cat(level, 1)
    scores = scores.gather(1, place).sigmoid()
    boxes = boxes.gather(1, place[..., None].expand(*place.shape, 4))
    boxes = clip_boxes(boxes, float(size[0]), float(size[1]))
    parts = []
    for own, score, number in zip(boxes, scores, group, strict=True):
        with_area = (own[:, 2:] > own[:, :2]).all(-1)
        own, score, number = own[with_area], score[with_area], number[with_area]
        parts.append(best_boxes(own, score, number, limits))
    found = join_boxes(parts, boxes)
    return replace(found, labels=torch.zeros_like(found.labels))  # they were levels
