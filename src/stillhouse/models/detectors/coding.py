"""Box coders: boxes relative to their priors, and back."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stillhouse.functional.boxes import centre
from stillhouse.functional.dtype import upcast

LARGEST = math.log(1000 / 16)  # the largest logarithm of box to anchor side, before the exponential
Deviations = tuple[float, float, float, float]
UNIT: Deviations = (1.0, 1.0, 1.0, 1.0)


def encode_deltas(boxes: Tensor, anchors: Tensor, deviations: Deviations = UNIT) -> Tensor:
    """Shift of the centre over the anchor's sides, log ratio of sides: (..., 4) twice -> (..., 4).

    Each is divided by its standard deviation (Girshick et al., 2014). Boxes must have an area.
    """
    sides, anchor_sides = boxes[..., 2:] - boxes[..., :2], anchors[..., 2:] - anchors[..., :2]
    shift = (centre(boxes) - centre(anchors)) / anchor_sides
    deltas = torch.cat([shift, (sides / anchor_sides).log()], -1)
    return deltas / deltas.new_tensor(deviations)


def decode_deltas(deltas: Tensor, anchors: Tensor, deviations: Deviations = UNIT) -> Tensor:
    """The inverse of `encode_deltas`, for sides up to 62.5 times those of the anchor."""
    shift, scale = (upcast(deltas) * anchors.new_tensor(deviations)).split(2, -1)
    sides = anchors[..., 2:] - anchors[..., :2]
    middle = centre(anchors) + shift * sides
    half = sides * scale.clamp(-LARGEST, LARGEST).exp() / 2
    return torch.cat([middle - half, middle + half], -1)


def encode_distances(boxes: Tensor, points: Tensor) -> Tensor:
    """Distances from a point to the left, top, right and bottom side: (..., 4), (..., 2)."""
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], -1)


def decode_distances(distances: Tensor, points: Tensor) -> Tensor:
    """The inverse of `encode_distances`: (..., 4), (..., 2) -> (..., 4)."""
    distances = upcast(distances)
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], -1)


def expected_bins(bins: Tensor, last: int) -> Tensor:
    """The mean of a distribution over 0, 1, ..., `last` for each side: (..., B) -> (..., 4).

    `bins` are logits, last + 1 for each of four sides (Li et al., 2020).
    """
    shares = upcast(bins).unflatten(-1, (4, last + 1)).softmax(-1)
    distances = torch.arange(last + 1, dtype=shares.dtype, device=shares.device)
    mean: Tensor = (shares * distances).sum(-1)
    return mean


def centreness(distances: Tensor) -> Tensor:
    """How central a point is in a box, 1 in its centre and 0 at its border: (..., 4) -> (...).

    The geometric mean of the ratios of opposite distances (FCOS, Tian et al., 2019); 0 for a point
    outside.
    """
    left, top, right, bottom = distances.unbind(-1)
    ratios = [
        torch.minimum(a, b).clamp(min=0) / torch.maximum(a, b).clamp(min=1e-12)
        for a, b in ((left, right), (top, bottom))
    ]
    return (ratios[0] * ratios[1]).sqrt()
