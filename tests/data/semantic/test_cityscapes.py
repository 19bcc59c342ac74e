from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mask_albums import photo, said, save, values
from stillhouse.batches import IGNORE
from stillhouse.data.catalogue import open_source
from stillhouse.data.source import Source

# the ids of the classes that are trained, as the authors of the data set list them
IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
TRAINED = dict(zip(IDS, range(19), strict=True))
CITIES = {"train": ("zurich", "aachen"), "val": ("munster",), "test": ("berlin",)}
SHAPE = (8, 16)


def write_cityscapes(root: Path, suffix: str = "labelIds", known: range = range(34)) -> Path:
    """Two frames of each city; masks of all ids."""
    for split, cities in CITIES.items():
        for city in cities:
            for number in range(2):
                stem = f"{split}/{city}/{city}_{number:06d}_000019"
                save(root / "leftImg8bit" / f"{stem}_leftImg8bit.png", photo(number, SHAPE))
                mask = values(number, known, SHAPE)
                save(root / "gtFine" / f"{stem}_gtFine_{suffix}.png", mask)
    return root


def opened(root: Path, split: str = "train", **options: object) -> Source:
    return open_source("cityscapes/semantic", root, split, **options)


@pytest.mark.parametrize("inner", ["", "cityscapes"])
def test_ids_become_the_19_classes_that_are_trained(inner: str, tmp_path: Path) -> None:
    write_cityscapes(tmp_path / inner)
    data = opened(tmp_path)
    assert (len(data), data.name) == (4, "cityscapes/semantic/train")
    assert len(data.classes) == 19
    assert data.classes[0] == "road" and data.classes[18] == "bicycle"
    assert data.classes[6:8] == ("traffic light", "traffic sign")
    for index, seed in enumerate((0, 1, 0, 1)):  # aachen before zurich
        image, mask, key = data[index]
        assert key == index and isinstance(mask, Tensor) and mask.dtype == torch.uint8
        assert torch.equal(image, torch.from_numpy(photo(seed, SHAPE)).permute(2, 0, 1))
        ids = values(seed, range(34), SHAPE)
        wanted = np.vectorize(lambda number: TRAINED.get(number, IGNORE))(ids)
        assert mask.tolist() == wanted.tolist()
        assert set(mask.unique().tolist()) == {*range(19), IGNORE}


def test_the_order_is_that_of_cities_and_names(tmp_path: Path) -> None:
    data = opened(write_cityscapes(tmp_path))
    cities = [Path(path).parent.name for path in data.images]  # type: ignore[attr-defined]
    assert cities == ["aachen", "aachen", "zurich", "zurich"]


def test_masks_of_train_ids_are_read_as_they_are(tmp_path: Path) -> None:
    data = opened(write_cityscapes(tmp_path, "labelTrainIds", range(19)))
    mask = data[1].target
    assert isinstance(mask, Tensor)
    assert mask.tolist() == values(1, range(19), SHAPE).tolist()


def test_ids_are_taken_where_both_are_there(tmp_path: Path) -> None:
    write_cityscapes(tmp_path, "labelTrainIds", range(19))
    data = opened(write_cityscapes(tmp_path))
    mask = data[0].target
    assert isinstance(mask, Tensor) and IGNORE in mask


def test_255_is_ignored_in_both_kinds(tmp_path: Path) -> None:
    for suffix in ("labelIds", "labelTrainIds"):
        root = write_cityscapes(tmp_path / suffix, suffix, range(19))
        stem = "train/aachen/aachen_000000_000019"
        save(root / "gtFine" / f"{stem}_gtFine_{suffix}.png", np.full(SHAPE, 255, np.uint8))
        mask = opened(root)[0].target
        assert isinstance(mask, Tensor) and mask.unique().tolist() == [IGNORE]


def test_test_is_the_val_folder_and_val_is_held_out(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path)
    assert opened(root, "test").images[0].startswith("leftImg8bit/val/munster/")  # type: ignore[attr-defined]
    assert said(lambda: opened(root, "val")) == (
        "cityscapes/semantic: there is no val split, as the val images are `test`; hold out "
        "samples of train with data.holdout=COUNT, or name folders with "
        "data.val.options.part=FOLDER and data.test.options.part=FOLDER"
    )
    for split in ("val", "test"):
        data = opened(root, split, part=split)
        assert data.images[0].startswith(f"leftImg8bit/{split}/")  # type: ignore[attr-defined]


def test_folders_that_are_missing_are_asked_for(tmp_path: Path) -> None:
    assert said(lambda: opened(tmp_path)) == (
        f"cityscapes/semantic: {tmp_path} contains no leftImg8bit; unpack the data set there"
    )
    (tmp_path / "leftImg8bit").mkdir()
    assert said(lambda: opened(tmp_path)) == (
        f"cityscapes/semantic: {tmp_path}/leftImg8bit/train has no images *_leftImg8bit.png; put "
        "them there"
    )


def test_a_missing_mask_has_its_place_named(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path)
    stem = "train/zurich/zurich_000001_000019"
    mask = root / "gtFine" / f"{stem}_gtFine_labelIds.png"
    mask.unlink()
    assert said(lambda: opened(root)) == (
        "cityscapes/semantic/train: 1 of 4 images have no mask, the first is "
        f"{root}/leftImg8bit/{stem}_leftImg8bit.png, whose mask would be {mask}; put it there, "
        "keep them with unlabelled='keep', or skip them with unlabelled='skip'"
    )
    assert len(opened(root, unlabelled="skip")) == 3


def test_an_id_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path)
    stem = "train/aachen/aachen_000000_000019"
    mask = save(root / "gtFine" / f"{stem}_gtFine_labelIds.png", np.full(SHAPE, 34, dtype=np.uint8))
    assert said(lambda: opened(root)[0]) == (
        f"{mask} has the value 34 in row 0, column 0, which is no class; correct it, or ignore "
        "such pixels with unknown='ignore'"
    )
