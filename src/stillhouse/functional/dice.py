"""Dice losses of masks."""

from __future__ import annotations

from torch import Tensor

from stillhouse.functional.dtype import full_precision, upcast

EPS = 1e-3  # pixels, added to the squared size of each mask


def dice(logits: Tensor, masks: Tensor) -> Tensor:
    """Dice loss with squares (Milletari et al., 2016) of each row: (R, ...), (R, ...) bool -> (R,).

    1 - 2 <p, m> / (|p|^2 + |m|^2) with p = sigmoid(logits), and `EPS` added to both squares. The
    loss of an empty mask is 1, whatever the logits.
    """
    with full_precision(logits):
        p, inside = upcast(logits).sigmoid().flatten(1), masks.flatten(1)
        shared = p.masked_fill(~inside, 0).sum(1)
        squares = p.square().sum(1) + inside.sum(1) + 2 * EPS
        return 1 - 2 * shared / squares
