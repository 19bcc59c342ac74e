"""Batches of objects with masks: padding, workers, embedded scenes, and images without labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from mask_albums import photo, save
from stillhouse.batches import Batch, Objects
from stillhouse.data.catalogue import open_source
from stillhouse.data.embedded import digits
from stillhouse.data.embedded.scenes import make_scenes
from stillhouse.data.instances.mask_files import InstanceSource, distinct_values
from stillhouse.data.instances.masked import masked_objects
from stillhouse.data.loader import BatchSampler, Loader
from stillhouse.data.mosaic import Mosaic
from stillhouse.data.positions import has_positions
from stillhouse.data.source import targets_of
from stillhouse.data.transforms import Flip, RandomScale, Single, Transform
from stillhouse.functional.mask_boxes import boxes_around

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
SIZES = ((16, 19), (19, 16), (15, 22), (18, 18))


@pytest.fixture
def data(tmp_path: Path) -> InstanceSource:
    """Eight images of four sizes; the third has no object, the sixth no mask."""
    for i in range(8):
        shape = SIZES[i % 4]
        numbers = np.zeros(shape, dtype=np.uint8)
        for number in range(0 if i == 2 else 1 + i % 3):
            numbers[2 * number : 2 * number + 6, 3 * number : 3 * number + 5] = number + 1
        save(tmp_path / "train" / "images" / f"{i}.png", photo(i, shape))
        if i != 5:
            save(tmp_path / "train" / "masks" / f"{i}.png", numbers)
    found = open_source("folder/instances", tmp_path, "train", classes=["x"], unlabelled="keep")
    assert isinstance(found, InstanceSource)
    return found


def loader(
    source: Any, transforms: tuple[Transform, ...] = (Flip(),), workers: int = 0, **options: Any
) -> Loader:
    sampler = BatchSampler(len(source), 4, True, 3)
    return Loader(source, sampler, MEAN, STD, transforms=transforms, workers=workers, **options)


@pytest.mark.parametrize("pad", [1, 8])
def test_a_batch_is_its_samples_moved_and_padded(pad: int, data: InstanceSource) -> None:
    chain = (RandomScale(0.8, 1.5, 0.0), Flip())
    single, seen = Single(chain, 3), 0
    for batch in loader(data, chain, pad=pad).epoch(0):
        target = batch.target
        assert isinstance(target, Objects) and target.masks is not None
        height, width = batch.images.shape[-2:]
        assert height % pad == width % pad == 0
        assert target.masks.shape == (len(target.labels), height, width)
        assert target.masks.dtype == torch.bool and target.images == 4
        for place, key in enumerate(batch.keys.tolist()):
            sample = data[key]
            own = target.rows(slice(place, place + 1))
            image, wanted = single.sample(sample.image, sample.target, key, 0)
            if wanted is None:
                assert key == 5 and not len(own.labels)
                continue
            assert isinstance(wanted, Objects) and wanted.masks is not None
            assert own.masks is not None and torch.equal(own.boxes, wanted.boxes)
            h, w = image.shape[1:]
            assert torch.equal(own.masks[:, :h, :w], wanted.masks)
            assert not own.masks[:, h:].any() and not own.masks[:, :, w:].any()
            seen += len(own.labels)
    assert seen > 8


def test_workers_change_nothing(data: InstanceSource) -> None:
    alone, helped = (list(loader(data, workers=workers).epoch(1)) for workers in (0, 2))
    assert len(alone) == len(helped) and all(map(tiny.same, alone, helped))


def test_mosaics_of_objects_with_masks(data: InstanceSource) -> None:
    for batch in loader(data, mosaic=Mosaic(32)).epoch(0):
        target = batch.target
        if isinstance(target, Objects):
            assert target.masks is not None and target.masks.shape[1:] == (32, 32)
            assert target.masks.flatten(1).any(1).all()


def test_what_is_known_of_a_source(data: InstanceSource) -> None:
    assert has_positions(data)
    targets = targets_of(data, 1000)
    assert isinstance(targets, Objects) and targets.masks is None and targets.images == 8
    assert targets.image.bincount(minlength=8).tolist() == [1, 2, 0, 1, 2, 0, 1, 2]


# ------------------------------------------------------------------------------------------- masks


def test_objects_of_empty_masks_are_left_out() -> None:
    masks = torch.zeros(3, 4, 4, dtype=torch.bool)
    masks[1, 1:3, 2] = True
    crowd, labels = torch.tensor([True, False, True]), torch.tensor([5, 6, 7])
    for area, wanted in ((None, 2.0), (torch.tensor([1.0, 2.5, 3.0]), 2.5)):
        found = masked_objects(masks, labels, crowd, area)
        assert found.labels.tolist() == [6] and found.boxes.tolist() == [[2, 1, 3, 3]]
        assert found.area is not None and found.area.tolist() == [wanted]


@pytest.mark.parametrize("largest", [200, 60_000, 70_000, (1 << 24) - 1])
def test_values_of_any_size_are_found(largest: int) -> None:
    values = np.zeros((6, 8), dtype=np.int32)
    values[2, 3], values[0, 0], values[5] = largest, 9, 1
    assert distinct_values(values).tolist() == [1, 9, largest]
    assert distinct_values(np.zeros((6, 8), dtype=np.uint8)).tolist() == []


# ---------------------------------------------------------------------------------- embedded scenes


def test_digits_have_the_pixels_that_are_visible_of_them() -> None:
    scenes = make_scenes("val", 40, seed=3)
    source = open_source("digits/instances", None, "val", count=40, seed=3)
    boxes = open_source("digits/objects", None, "val", count=40, seed=3)
    for index in range(40):
        sample, other = source[index], boxes[index].target
        target = sample.target
        assert isinstance(target, Objects) and isinstance(other, Objects)
        assert target.masks is not None and target.masks.dtype == torch.bool
        assert torch.equal(sample.image, boxes[index].image)
        assert torch.equal(target.labels, other.labels) and torch.equal(target.boxes, other.boxes)
        assert torch.equal(boxes_around(target.masks), target.boxes)
        assert (target.masks.sum(0) <= 1).all()  # the later digit covers the earlier one
        numbers = (scenes.labels[index] >= 0).nonzero().flatten() + 1
        for mask, number in zip(target.masks, numbers, strict=True):
            assert torch.equal(mask, scenes.instances[index] == number)


def test_a_digit_of_which_too_little_is_visible_is_no_object(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scenes = make_scenes("val", 6)
    labels = scenes.labels.clone()
    labels[:, 0] = -1
    monkeypatch.setattr(digits, "make_scenes", lambda *given: replace(scenes, labels=labels))
    made = digits.make_instances("val", 6)
    for index in range(6):
        sample = made[index]
        assert isinstance(sample.target, Objects) and sample.target.masks is not None
        first = scenes.instances[index] == 1
        assert first.any() and not (sample.target.masks & first).any()
        assert len(sample.target.labels) == int((labels[index] >= 0).sum())


def test_batches_of_digits_are_made_in_memory() -> None:
    source = open_source("digits/instances", None, "train", count=12)
    sampler = BatchSampler(12, 4)
    batches: list[Batch[Any]] = list(Loader(source, sampler, MEAN, STD).epoch(0))
    for number, batch in enumerate(batches):
        whole = [source[4 * number + place].target for place in range(4)]
        assert isinstance(batch.target, Objects) and batch.target.masks is not None
        wanted = torch.cat([one.masks for one in whole])  # type: ignore[union-attr]
        assert torch.equal(batch.target.masks, wanted)
        assert batch.target.images == 4
