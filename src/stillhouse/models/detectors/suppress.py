"""From raw predictions to detections: the best candidates of each level, decoded and suppressed."""

from __future__ import annotations

import torch
from torch import Tensor

from stillhouse.batches import Objects
from stillhouse.functional.boxes import clip_boxes
from stillhouse.models.detectors.output import Dense, Suppression


@torch.no_grad()
def detect(out: Dense, sizes: Tensor, options: Suppression | None = None) -> Objects:
    """The detections of N images with their scores, the best of each image first.

    `options` are by default those of the detector's family.

    `sizes` (N, 2) are the height and width of the images before padding, which boxes are clipped
    to. Of each level the best `candidates` pairs of prior and class above `threshold` are kept;
    overlapping ones of one class are suppressed, and the best `most` of an image remain.
    """
    options = options or out.family.suppression
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
        kept = suppress(found, score[above], label[above], options.iou)[: options.most]
        parts.append((found[kept], label[above][kept], score[above][kept]))
    none = torch.zeros(0, dtype=torch.int64, device=boxes.device)
    parts.append((boxes.new_zeros(0, 4), none, boxes.new_zeros(0)))  # for a rank without images
    found, labels, scores = (torch.cat(part) for part in zip(*parts, strict=True))
    counts = torch.tensor([len(part[0]) for part in parts[:-1]], device=found.device)
    image = torch.arange(len(boxes), device=found.device).repeat_interleave(counts.long())
    return Objects(found, labels, image, images=len(boxes), scores=scores)


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
