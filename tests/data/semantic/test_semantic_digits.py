from __future__ import annotations

import torch
from torch import Tensor

from mask_albums import said
from stillhouse.batches import IGNORE, Objects
from stillhouse.data.catalogue import open_source
from stillhouse.data.source import Pixels, targets_of


def opened(split: str = "train", **options: object) -> Pixels:
    data = open_source("digits/semantic", None, split, **options)
    assert isinstance(data, Pixels)
    return data


def test_the_same_scenes_as_with_boxes() -> None:
    """Each box is around pixels of its class."""
    data = opened(count=60, seed=3)
    boxes = open_source("digits/objects", None, "train", count=60, seed=3)
    assert data.classes == ("background", *boxes.classes)
    for index in range(60):
        sample, other = data[index], boxes[index]
        mask, objects = sample.target, other.target
        assert torch.equal(sample.image, other.image)
        assert isinstance(mask, Tensor) and isinstance(objects, Objects)
        assert mask.dtype == torch.uint8 and mask.shape == sample.image.shape[1:]
        assert set(mask.unique().tolist()) - {IGNORE} == {0, *(objects.labels + 1).tolist()}
        for box, label in zip(objects.boxes.int().tolist(), objects.labels.tolist(), strict=True):
            x1, y1, x2, y2 = box
            inside = mask[y1:y2, x1:x2] == label + 1
            assert inside.any(0).all() or inside.sum() > 10
            assert inside[0].any() and inside[-1].any()


def test_count_size_and_seed() -> None:
    data = opened("val", count=7, size=32)
    assert data.images.shape == (7, 3, 32, 32)
    masks = targets_of(data)
    assert isinstance(masks, Tensor) and masks.shape == (7, 32, 32)
    assert opened("val", count=7, size=32, seed=1).fingerprint != data.fingerprint
    longer = opened("val", count=9, size=32)
    assert torch.equal(longer.images[:7], data.images)


def test_options_out_of_range() -> None:
    for options in ({"count": 0}, {"count": 3, "size": 8}):
        message = said(lambda options=options: opened(**options))
        assert message == "digits/scenes needs `count` of at least 1 and `size` of 24"
