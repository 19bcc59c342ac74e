"""Small SOLO networks and instances with masks, for tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stillhouse.batches import Objects
from stillhouse.functional.mask_boxes import boxes_around
from stillhouse.models import zoo
from stillhouse.models.detectors.cell_detector import CellDetector

SIZE = (48, 64)
RANGES = ((1.0, 24.0), (16.0, 96.0))


def small_solov2(classes: int = 5, **options: Any) -> CellDetector:
    """Mask features of stride 2, and grids of 9 and 6 cells per side on strides 4 and 8."""
    known: dict[str, Any] = {
        "backbone": "stillhouse/small",
        "strides": (2, 4, 8),
        "neck": {"width": 16, "extra": 0},
        "head": {"width": 16, "depth": 1, "mask_width": 8, "mask_channels": 6},
        "levels": ("p2", "p3"),
        "grids": (9, 6),
        "ranges": RANGES,
    }
    made = zoo.create("detector/solov2", classes, **{**known, **options})
    assert isinstance(made, CellDetector)
    return made


def some_instances(*counts: int, classes: int = 5, seed: int = 0) -> Objects:
    """Random ellipses inside an image of `SIZE`, so many in each image, with float64 boxes."""
    random = torch.Generator().manual_seed(seed)
    total, (height, width) = sum(counts), SIZE
    radii = 2 + 14 * torch.rand(total, 2, generator=random, dtype=torch.double)
    middle = torch.rand(total, 2, generator=random, dtype=torch.double) * torch.tensor(
        [width, height]
    )
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    places = torch.stack([x, y], -1)
    far = ((places - middle[:, None, None]) / radii[:, None, None]).square().sum(-1)
    masks = far < 1
    return Objects(
        boxes_around(masks).double(),
        torch.randint(0, classes, (total,), generator=random),
        torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)),
        images=len(counts),
        masks=masks,
    )


def some_images(count: int, seed: int = 0, size: tuple[int, int] = SIZE) -> Tensor:
    """Random images in float64."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, *size, generator=random, dtype=torch.double)
