"""Feature maps as rows, precision, and gradients turned round."""

from __future__ import annotations

import pytest
import torch

from stillhouse.functional import reverse_gradient, rows, upcast
from stillhouse.functional.dtype import full_precision


def test_rows_of_maps_hold_what_they_say() -> None:
    maps = torch.arange(2 * 3 * 2 * 2.0).view(2, 3, 2, 2)
    n, c, h, w = 1, 2, 0, 1
    value = maps[n, c, h, w]
    pixel = h * 2 + w
    assert rows.channels(maps).shape == (6, 4)
    assert rows.channels(maps)[n * 3 + c, pixel] == value
    assert rows.pixels(maps).shape == (8, 3)
    assert rows.pixels(maps)[n * 4 + pixel, c] == value
    assert rows.images(maps).shape == (2, 12)
    assert rows.images(maps)[n, c * 4 + pixel] == value
    assert rows.channels_of_batch(maps).shape == (3, 8)
    assert rows.channels_of_batch(maps)[c, n * 4 + pixel] == value
    assert rows.space(maps).shape == (2, 4)
    assert rows.space(maps)[n, pixel] == maps[n, :, h, w].sum()


@pytest.mark.parametrize(
    ("given", "raised"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_only_half_precision_is_raised(given: torch.dtype, raised: torch.dtype) -> None:
    assert upcast(torch.zeros(2, dtype=given)).dtype == raised


def test_full_precision_holds_inside_autocast() -> None:
    x = torch.randn(4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
        with full_precision(x):
            assert (x @ x).dtype == torch.float


def test_reverse_is_the_identity_with_its_gradient_turned_round() -> None:
    x = torch.randn(3, requires_grad=True)
    out = reverse_gradient(x, 0.5)
    assert torch.equal(out, x)
    (out * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert torch.equal(x.grad, torch.tensor([-0.5, -1.0, -1.5]))
