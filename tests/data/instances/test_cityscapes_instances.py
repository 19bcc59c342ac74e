"""Objects of Cityscapes: of numbered values one each, of others groups."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mask_albums import photo, said, save
from stillhouse.batches import Objects
from stillhouse.data.catalogue import open_source
from stillhouse.data.instances.mask_files import InstanceSource
from stillhouse.data.source import Sample, classes_of

CLASSES = ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
IDS = (24, 25, 26, 27, 28, 31, 32, 33)
SHAPE = (16, 32)


def frame() -> np.ndarray:
    """Road, a building, two cars, a group of cars, a bicycle, and a caravan, which is no class."""
    pixels = np.full(SHAPE, 7, dtype=np.uint16)
    pixels[:4] = 11
    pixels[6:9, 2:7] = 26000
    pixels[7:12, 5:20:2] = 26001  # over the first, with gaps
    pixels[13:, 20:] = 26
    pixels[5, 31] = 33012
    pixels[14, :4] = 29000
    return pixels


def write(root: Path, pixels: np.ndarray | None = None) -> Path:
    for split, city in (("train", "zurich"), ("train", "aachen"), ("val", "munster")):
        stem = f"{split}/{city}/{city}_000000_000019"
        save(root / "leftImg8bit" / f"{stem}_leftImg8bit.png", photo(1, SHAPE))
        mask = frame() if pixels is None else pixels
        save(root / "gtFine" / f"{stem}_gtFine_instanceIds.png", mask)
    return root


def opened(root: Path, split: str = "train", **options: object) -> InstanceSource:
    data = open_source("cityscapes/instances", root, split, **options)
    assert isinstance(data, InstanceSource)
    return data


def objects_of(sample: Sample) -> Objects:
    assert isinstance(sample.target, Objects)
    return sample.target


def mask_of(root: Path) -> Path:
    return root / "gtFine" / "train" / "aachen" / "aachen_000000_000019_gtFine_instanceIds.png"


def test_numbered_values_are_objects_and_ids_are_groups(tmp_path: Path) -> None:
    data = opened(write(tmp_path))
    assert (len(data), data.name, data.classes) == (2, "cityscapes/instances/train", CLASSES)
    assert data.images[0].startswith("leftImg8bit/train/aachen/")
    found = objects_of(data[0])
    assert found.masks is not None and found.crowd is not None and found.area is not None
    assert found.labels.tolist() == [2, 2, 2, 7]  # in the order of the values
    assert found.crowd.tolist() == [True, False, False, False]
    for mask, value in zip(found.masks, (26, 26000, 26001, 33012), strict=True):
        assert np.array_equal(mask, frame() == value)
    assert found.boxes.tolist() == [[20, 13, 32, 16], [2, 6, 7, 9], [5, 7, 20, 12], [31, 5, 32, 6]]
    assert found.area.tolist() == [float((frame() == v).sum()) for v in (26, 26000, 26001, 33012)]
    assert torch.equal(data[0].image, torch.from_numpy(photo(1, SHAPE)).permute(2, 0, 1))


def test_the_classes_with_instances_and_no_others(tmp_path: Path) -> None:
    pixels = np.zeros(SHAPE, dtype=np.uint16)
    known = [number * 1000 + 1 for number in range(1, 34)]
    pixels.flat[: len(known)] = known
    found = objects_of(opened(write(tmp_path, pixels))[0])
    assert found.labels.tolist() == list(range(8))
    assert found.boxes[:, 0].tolist() == [float(number - 1) for number in IDS[:-1]] + [0]


def test_test_is_the_val_folder(tmp_path: Path) -> None:
    data = opened(write(tmp_path), "test")
    assert [Path(path).parent.name for path in data.images] == ["munster"]
    assert said(lambda: opened(tmp_path, "val")).startswith("cityscapes/instances: there is no val")
    assert len(opened(tmp_path, "val", part="val")) == 1


@pytest.mark.parametrize("value", [34, 999, 34000, 65535])
def test_an_id_that_does_not_exist_is_refused(value: int, tmp_path: Path) -> None:
    pixels = frame()
    pixels[2, 5:7] = value
    data = opened(write(tmp_path, pixels))
    assert said(lambda: data[0]) == (
        f"{mask_of(tmp_path)} has the value {value} in row 2, column 5, which is no object; "
        "correct it, or ignore such pixels with unknown='ignore'"
    )
    assert len(objects_of(opened(tmp_path, unknown="ignore")[0]).labels) == 4


def test_frames_without_objects(tmp_path: Path) -> None:
    write(tmp_path)
    save(mask_of(tmp_path), np.full(SHAPE, 7, dtype=np.uint8))
    found = objects_of(opened(tmp_path)[0])
    assert found.masks is not None and found.masks.shape == (0, *SHAPE)
    assert found.boxes.shape == (0, 4) and found.area is not None and found.crowd is not None
    skipped = opened(tmp_path, empty="skip")
    assert skipped.notes == (
        "cityscapes/instances/train: 1 of 2 masks have no objects and are skipped; the first is "
        f"{mask_of(tmp_path)}",
    )
    assert [Path(path).parent.name for path in skipped.images] == ["zurich"]


def test_samples_are_held_out_by_class_on_request(tmp_path: Path) -> None:
    data = opened(write(tmp_path), stratify=True)
    assert classes_of(data).tolist() == [[0, 0, 1, 0, 0, 0, 0, 1]] * 2
    assert not classes_of(opened(tmp_path)).any()


def test_a_missing_mask_has_its_place_named(tmp_path: Path) -> None:
    root = write(tmp_path)
    mask_of(root).unlink()
    assert f"whose mask would be {mask_of(root)}; put it there" in said(lambda: opened(root))
    assert opened(root, unlabelled="keep")[0].target is None
