"""Maps and masks at another size."""

from __future__ import annotations

import pytest
import torch

from stillhouse.functional.resize import resize_maps, resize_mask


def test_corners_stay() -> None:
    maps = torch.randn(2, 3, 4, 5, dtype=torch.double)
    larger = resize_maps(maps, (9, 11))
    assert larger.shape == (2, 3, 9, 11) and resize_maps(maps, (4, 5)) is maps
    for y in (0, -1):
        for x in (0, -1):
            torch.testing.assert_close(larger[..., y, x], maps[..., y, x])
    line = torch.arange(5.0).expand(1, 1, 3, 5)
    torch.testing.assert_close(resize_maps(line, (3, 9))[0, 0, 0], torch.arange(9) / 2)
    assert resize_maps(maps.half(), (2, 2)).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_masks_keep_their_classes(dtype: torch.dtype) -> None:
    mask = torch.tensor([[[0, 1, 2, 255], [7, 8, 9, 254]]], dtype=dtype)
    assert resize_mask(mask, (2, 4)) is mask
    smaller = resize_mask(mask, (1, 2))
    assert smaller.dtype == dtype and smaller.tolist() == [[[8, 254]]]
    larger = resize_mask(mask, (4, 8))
    assert torch.equal(larger, mask.repeat_interleave(2, 1).repeat_interleave(2, 2))
