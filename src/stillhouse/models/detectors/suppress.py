"""From raw predictions to detections: the best candidates of each level, decoded and suppressed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from stillhouse.batches import Objects
from stillhouse.functional.boxes import centre, clip_boxes
from stillhouse.functional.dtype import upcast
from stillhouse.models.detectors.output import Dense, Suppression
from stillhouse.models.detectors.two_stage import TwoStage

Detections = Dense | TwoStage  # what detections are made of


def detect(out: Detections, sizes: Tensor, options: Suppression | None = None) -> Objects:
    """The detections of N images with their scores, the best of each image first.

    `sizes` (N, 2) are the height and width of the images before padding. `options` are by default
    those of the detector's family.
    """
    options = options or out.family.suppression
    if isinstance(out, TwoStage):
        return detect_in_regions(out, sizes, options)
    return detect_at_priors(out, sizes, options)


@torch.no_grad()
def detect_at_priors(out: Dense, sizes: Tensor, options: Suppression) -> Objects:
    """The detections of a dense detector.

    `sizes` (N, 2) are the height and width of the images before padding, which boxes are clipped
    to. Of each level the best `candidates` pairs of prior and class above `threshold` are kept;
    overlapping ones of one class are suppressed, and the best `most` of an image remain.
    """
    boxes = out.decoded.float()
    height, width = sizes.to(boxes)[:, None].unbind(-1)
    boxes = clip_boxes(boxes, height, width)
    # priors in the padding of a batch would give slivers at the border of the image
    inside = (out.priors.centres <= sizes.to(boxes).flip(1)[:, None]).all(-1)
    candidates = best_candidates(out, options, inside)
    parts = []
    for own, score, place, label in zip(boxes, *candidates, strict=True):
        above = score > 0
        found = own[place[above]]
        parts.append(best_boxes(found, score[above], label[above], options))
    return join_boxes(parts, boxes)


@torch.no_grad()
def detect_in_regions(out: TwoStage, sizes: Tensor, options: Suppression) -> Objects:
    """The detections of a two-stage detector.

    The probability of a class is the mean over stages, the box that of the last stage. All pairs of
    region and class above `threshold` are candidates.
    """
    *_, last = stages = out.predicted
    shares = torch.stack([upcast(stage.scores).softmax(-1) for stage in stages]).mean(0)[:, :-1]
    boxes = last.decoded.to(shares.dtype)
    size = sizes.to(boxes)[last.image]
    boxes = clip_boxes(boxes, *size[:, None].unbind(-1)).expand(-1, out.classes, 4)
    inside = (centre(last.boxes) <= size.flip(1)).all(-1)  # not in the padding
    candidates = (shares > options.threshold) & inside[:, None]
    parts = []
    for number in range(len(out)):
        row, label = (candidates & (last.image == number)[:, None]).nonzero().unbind(1)
        parts.append(best_boxes(boxes[row, label], shares[row, label], label, options))
    return join_boxes(parts, boxes)


class Found(NamedTuple):
    """What was found in one image, the best first."""

    boxes: Tensor  # (K, 4)
    labels: Tensor  # (K,)
    scores: Tensor  # (K,)


def best_boxes(boxes: Tensor, scores: Tensor, labels: Tensor, options: Suppression) -> Found:
    """Those that remain of the candidates of one image: (K, 4), (K,), (K,)."""
    kept = suppress(boxes, scores, labels, options.iou)[: options.most]
    return Found(boxes[kept], labels[kept], scores[kept])


def join_boxes(parts: Sequence[Found], like: Tensor) -> Objects:
    """What was found in several images, or in none; `like` has the dtype and device of boxes."""
    none = torch.zeros(0, dtype=torch.int64, device=like.device)
    empty = Found(like.new_zeros(0, 4), none, like.new_zeros(0))  # for a rank without images
    boxes, labels, scores = (torch.cat(part) for part in zip(*parts, empty, strict=True))
    counts = torch.tensor([len(part.labels) for part in parts], device=like.device)
    image = torch.arange(len(parts), device=like.device).repeat_interleave(counts.long())
    return Objects(boxes, labels, image, images=len(parts), scores=scores)


def best_candidates(
    out: Dense, options: Suppression, inside: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The best pairs of prior and class of each level, and their score, 0 below the threshold.

    `inside` (N, P) are the priors that count. -> (N, K) score, (N, K) prior, (N, K) class.
    """
    ranked = out.family.probabilities(out).float()
    counts = (out.scores.float().sigmoid() > options.threshold) & inside[..., None]
    ranked = ranked.masked_fill(~counts, 0)
    found, start = [], 0
    for part in ranked.split(out.priors.counts, 1):
        flat = part.flatten(1)
        best = flat.topk(min(options.candidates, flat.shape[1]), 1)
        classes = part.shape[-1]
        prior = best.indices.div(classes, rounding_mode="floor") + start
        found.append((best.values, prior, best.indices % classes))
        start += part.shape[1]
    scores, places, labels = zip(*found, strict=True)
    return torch.cat(scores, 1), torch.cat(places, 1), torch.cat(labels, 1)


def suppress(boxes: Tensor, scores: Tensor, labels: Tensor, iou: float) -> Tensor:
    """Indices of the boxes that remain, the best first: (K, 4), (K,), (K,) class -> (R,)."""
    from torchvision.ops import nms

    # boxes of each class are moved to a place of their own, in double precision to keep their IoU
    offset = labels.double() * (boxes.max().double() + 1 if len(boxes) else 0)
    kept: Tensor = nms(boxes.double() + offset[:, None], scores.double(), iou)
    return kept
