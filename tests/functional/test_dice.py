"""Dice losses and boxes of masks, against plain loops."""

from __future__ import annotations

import math

import pytest
import torch

from stillhouse.functional.dice import dice
from stillhouse.functional.mask_boxes import boxes_around


def some_masks(count: int = 7, height: int = 5, width: int = 6) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    masks = torch.rand(count, height, width, generator=random) < 0.2
    masks[2] = False
    return masks


def test_dice_is_its_formula() -> None:
    masks = some_masks()
    logits = torch.randn(masks.shape, dtype=torch.double)
    found = dice(logits, masks)
    for loss, z, mask in zip(found.tolist(), logits, masks, strict=True):
        shared = squares = 0.0
        for value, inside in zip(z.flatten().tolist(), mask.flatten().tolist(), strict=True):
            p = 1 / (1 + math.exp(-value))
            shared += p * inside
            squares += p * p + inside
        assert loss == pytest.approx(1 - 2 * shared / (squares + 2e-3), rel=1e-12)
    assert found[2] == 1


def test_dice_of_a_perfect_mask_is_nearly_0() -> None:
    masks = some_masks()[:2]
    assert (dice(1000.0 * (2.0 * masks - 1), masks) < 1e-3).all()


def test_dice_has_the_gradient_of_its_formula() -> None:
    masks = some_masks(3, 2, 3)
    logits = torch.randn(masks.shape, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: dice(z, masks), (logits,))


def test_dice_is_computed_in_full_precision() -> None:
    masks = torch.ones(1, 300, 300, dtype=torch.bool)  # sums that half precision does not hold
    with torch.autocast("cpu", torch.bfloat16):
        loss = dice(torch.full((1, 300, 300), 4.0, dtype=torch.bfloat16), masks)
    p = 1 / (1 + math.exp(-4))
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(1 - 2 * p / (p * p + 1), abs=1e-5)


def test_boxes_around_masks_are_tight() -> None:
    masks = some_masks()
    for box, mask in zip(boxes_around(masks).tolist(), masks, strict=True):
        places = mask.nonzero().tolist()
        if not places:
            assert box == [0, 0, 0, 0]
            continue
        rows, columns = zip(*places, strict=True)
        assert box == [min(columns), min(rows), max(columns) + 1, max(rows) + 1]
    assert boxes_around(masks[:0]).shape == (0, 4)
