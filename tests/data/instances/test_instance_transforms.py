"""Masks of objects that move with their boxes, and objects of which nothing is left in sight."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from stillhouse.batches import Objects
from stillhouse.data.mosaic import join_samples
from stillhouse.data.source import Sample
from stillhouse.data.transforms import (
    BoxCrop,
    CenterCrop,
    Crop,
    Expand,
    Flip,
    RandomCrop,
    RandomScale,
    Resize,
    ResizedCrop,
    Single,
    Transform,
)

HEIGHT, WIDTH = 40, 56
WHOLE: list[Sequence[Transform]] = [  # nothing is cut off
    [Flip(1.0)],
    [Expand(1.0, 2.5)],
    [CenterCrop(70)],
    [RandomCrop(80)],
    [Resize(30)],
    [Resize(73)],
    [Resize(44, square=True)],
    [Resize((30, 50), range=True), Flip()],
    [RandomScale(0.8, 2.0, 0.0)],
]
CUT: list[Sequence[Transform]] = [
    [Crop(9)],
    [CenterCrop(25)],
    [RandomCrop((20, 24))],
    [RandomScale(0.7, 1.6, 0.0), RandomCrop(24)],
    [ResizedCrop(32)],
    [BoxCrop(1.0, overlaps=(0.0, 0.3))],
    [Expand(), BoxCrop(), Resize(48, square=True), Flip()],
]


def name(chain: Sequence[Transform]) -> str:
    return "-".join(f"{transform.kind}{getattr(transform, 'size', '')}" for transform in chain)


def shapes() -> Tensor:
    """An L, a ring, a diagonal and a disk in a corner: (4, H, W) bool."""
    y, x = torch.arange(HEIGHT)[:, None], torch.arange(WIDTH)[None]
    ell = (x >= 4) & (x < 24) & (y >= 3) & (y < 30) & ((x < 8) | (y >= 25))
    distance = (y - 15) ** 2 + (x - 38) ** 2
    ring = (distance <= 144) & (distance >= 64)
    diagonal = ((y - x + 10).abs() <= 2) & (y >= 8)
    disk = (y - HEIGHT) ** 2 + (x - WIDTH) ** 2 <= 100
    return torch.stack([ell, ring, diagonal, disk])


def tight(mask: Tensor) -> list[float]:
    rows, columns = (mask.any(axis).nonzero().flatten().tolist() for axis in (1, 0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def drawn() -> Sample:
    """Each object in a colour of its own, so that the image shows its pixels."""
    masks = shapes()
    image = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8)
    for number, mask in enumerate(masks):
        image[:, mask] = 60 * (number + 1)
    boxes = torch.tensor([tight(mask) for mask in masks], dtype=torch.float32)
    labels = torch.arange(4)
    area = masks.flatten(1).sum(1).float()
    crowd = torch.tensor([False, True, False, False])
    target = Objects(boxes, labels, torch.zeros_like(labels), 1, crowd, masks, area=area)
    return Sample(image, target, 0)


def moved(chain: Sequence[Transform], key: int) -> tuple[Tensor, Objects, Tensor]:
    sample = drawn()
    image, target = Single(chain, 5).sample(sample.image, sample.target, key, 0)
    assert isinstance(target, Objects) and target.masks is not None
    assert target.masks.dtype == torch.bool and target.masks.shape[1:] == image.shape[1:]
    assert len(target.masks) == len(target.boxes) == len(target.labels)
    return image, target, target.masks


@pytest.mark.parametrize("chain", WHOLE, ids=name)
def test_the_tight_box_of_a_moved_mask_is_the_moved_box(chain: Sequence[Transform]) -> None:
    for key in range(10):
        _, target, masks = moved(chain, key)
        assert target.labels.tolist() == [0, 1, 2, 3]
        for mask, box in zip(masks, target.boxes, strict=True):
            assert (torch.tensor(tight(mask)) - box).abs().max() <= 1


@pytest.mark.parametrize("chain", CUT, ids=name)
def test_a_box_that_was_cut_holds_all_pixels_of_its_mask(chain: Sequence[Transform]) -> None:
    counts = set()
    for key in range(40):
        image, target, masks = moved(chain, key)
        counts.add(len(masks))
        height, width = image.shape[1:]
        for mask, (x1, y1, x2, y2) in zip(masks, target.boxes.tolist(), strict=True):
            assert mask.any()
            a1, b1, a2, b2 = tight(mask)
            assert a1 >= x1 - 1 and b1 >= y1 - 1 and a2 <= x2 + 1 and b2 <= y2 + 1
            assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
    assert min(counts) < 4  # some were cut off


@pytest.mark.parametrize(
    "chain", [[Crop(9)], [RandomCrop((20, 24))], [Flip(), RandomCrop(30)]], ids=name
)
def test_pixels_of_masks_are_those_that_the_image_shows(chain: Sequence[Transform]) -> None:
    for key in range(20):
        image, target, masks = moved(chain, key)
        for mask, label in zip(masks, target.labels.tolist(), strict=True):
            shown = image[0] == 60 * (label + 1)
            later = (image[0] > 60 * (label + 1)) & (image[0] != 114)  # painted over
            assert torch.equal(mask & ~later, shown)


def test_an_object_whose_box_is_in_sight_but_no_pixel_of_it_is_dropped() -> None:
    """The window is in the empty corner of the L, in which its box still has an area."""
    sample = drawn()
    target = sample.target
    assert isinstance(target, Objects)
    window = [CenterCrop(10)]  # rows 15 to 25, columns 23 to 33
    _, found, masks = moved(window, 0)
    box = target.boxes[0].tolist()
    assert box[2] > 23 and box[3] > 15  # of the L, in sight
    assert 0 not in found.labels and masks.flatten(1).any(1).all()
    assert found.crowd is not None and found.area is not None
    assert found.crowd.tolist() == [label == 1 for label in found.labels.tolist()]
    assert found.area.tolist() == [float(shapes()[label].sum()) for label in found.labels.tolist()]


@pytest.mark.parametrize("chain", [[Flip(1.0)], [Resize(20)], [RandomCrop(60)], [Expand(1.0)]])
def test_images_without_objects_stay_without(chain: Sequence[Transform]) -> None:
    sample = drawn()
    target = sample.target
    assert isinstance(target, Objects)
    none = target.objects(torch.zeros(4, dtype=torch.bool))
    image, found = Single(chain, 1).sample(sample.image, none, 0, 0)
    assert isinstance(found, Objects) and found.masks is not None
    assert found.masks.shape == (0, *image.shape[1:]) and found.boxes.shape == (0, 4)


@pytest.mark.parametrize("corner", [(32, 32), (20, 41), (48, 16)])
def test_mosaics_place_masks_with_their_boxes(corner: tuple[int, int]) -> None:
    whole = join_samples([drawn()] * 4, 64, *corner).target
    assert isinstance(whole, Objects) and whole.masks is not None
    assert whole.masks.shape == (len(whole.labels), 64, 64)
    assert whole.images == 1 and not whole.image.any()
    for mask, (x1, y1, x2, y2) in zip(whole.masks, whole.boxes.tolist(), strict=True):
        a1, b1, a2, b2 = tight(mask)
        assert a1 >= x1 - 1 and b1 >= y1 - 1 and a2 <= x2 + 1 and b2 <= y2 + 1
    if corner == (32, 32):
        assert len(whole.labels) == 16
        for mask, box in zip(whole.masks, whole.boxes, strict=True):
            assert (torch.tensor(tight(mask)) - box).abs().max() <= 1
