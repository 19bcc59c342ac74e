"""Small detectors and scenes of objects, for tests."""

from __future__ import annotations

from typing import Any

import torch

from stillhouse.batches import Batch, Objects
from stillhouse.models import zoo
from stillhouse.models.detectors.detector import Detector

FAMILIES = ("retinanet", "fcos", "atss", "gfocal", "reppoints")
SIZE = (48, 64)


def small_detector(family: str, classes: int = 5, **options: Any) -> Detector:
    """Three levels of strides 4, 8 and 16."""
    known: dict[str, Any] = {
        "backbone": "stillhouse/small",
        "strides": (4, 8),
        "neck": {"width": 16, "extra": 1},
        "head": {"width": 16, "depth": 1},
    }
    made = zoo.create(f"detector/{family}", classes, **{**known, **options})
    assert isinstance(made, Detector)
    return made


def small_two_stage(family: str = "faster_rcnn", classes: int = 5, **options: Any) -> Any:
    """Levels of strides 4 and 8, a third one for proposals; all anchors and regions are sampled."""
    known: dict[str, Any] = {
        "backbone": "stillhouse/small",
        "strides": (4, 8),
        "scale": 4.0,
        "anchors": 4096,
        "sampled": 4096,
        "share": 1.0,
        "proposals": 30,
        "neck": {"width": 16},
        "head": {"width": 24},
    }
    return zoo.create(f"detector/{family}", classes, **{**known, **options})


def some_objects(*counts: int, classes: int = 5, seed: int = 0) -> Objects:
    """Random boxes inside an image of `SIZE`, so many in each image; float64."""
    random = torch.Generator().manual_seed(seed)
    total = sum(counts)
    corners = torch.rand(total, 2, generator=random, dtype=torch.double)
    sides = 4 + 28 * torch.rand(total, 2, generator=random, dtype=torch.double)
    limit = torch.tensor([SIZE[1], SIZE[0]], dtype=torch.double)
    low = corners * (limit - sides)
    return Objects(
        torch.cat([low, low + sides], 1),
        torch.randint(0, classes, (total,), generator=random),
        torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)),
        images=len(counts),
    )


def some_batch(*counts: int, classes: int = 5, seed: int = 0) -> Batch[Objects]:
    """Random images of `SIZE` with so many objects each; float64."""
    random = torch.Generator().manual_seed(seed)
    images = torch.randn(len(counts), 3, *SIZE, generator=random, dtype=torch.double)
    keys = torch.arange(len(counts))
    objects = some_objects(*counts, classes=classes, seed=seed)
    return Batch(images, objects, keys, torch.zeros_like(keys))
