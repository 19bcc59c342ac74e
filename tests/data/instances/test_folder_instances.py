"""Masks of one's own that number their objects, and the table of their classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mask_albums import SHAPE, photo, said, save, save_palette
from stillhouse.batches import Objects
from stillhouse.data.catalogue import open_source
from stillhouse.data.instances.mask_files import InstanceSource
from stillhouse.data.source import Sample

NUMBERS = (3, 7, 200)  # of three objects in every mask


def numbered(offset: int = 0, dtype: type = np.uint8) -> np.ndarray:
    """Three objects, of which the second has two parts."""
    pixels = np.zeros(SHAPE, dtype=dtype)
    pixels[1:3, 2:5] = NUMBERS[0] + offset
    pixels[4, :2] = pixels[4, 6:] = NUMBERS[1] + offset
    pixels[0, 8] = NUMBERS[2] + offset
    return pixels


def colours(numbers: np.ndarray) -> np.ndarray:
    return np.stack([numbers & 255, numbers >> 8 & 255, numbers >> 16], -1).astype(np.uint8)


ROWS = "mask,value,class\na.png,3,cat\na.png,7,dog\na.png,200,cat\nb.png,3,dog\n"


def write(root: Path, table: str = ROWS, classes: str = "dog\ncat\n") -> Path:
    for name in "ab":
        save(root / "train" / "images" / f"{name}.jpg", photo(ord(name)))
    save(root / "train" / "masks" / "a.png", numbered())
    alone = numbered()
    save(root / "train" / "masks" / "b.png", np.where(alone == 3, alone, 0).astype(np.uint8))
    if table:
        table_of(root).write_text(table)
    if classes:
        (root / "classes.txt").write_text(classes)
    return root


def table_of(root: Path) -> Path:
    return root / "train" / "instances.csv"


def opened(root: Path, split: str = "train", **options: Any) -> InstanceSource:
    data = open_source("folder/instances", root, split, **options)
    assert isinstance(data, InstanceSource)
    return data


def objects_of(sample: Sample) -> Objects:
    assert isinstance(sample.target, Objects)
    return sample.target


def check(found: Objects, pixels: np.ndarray, numbers: tuple[int, ...]) -> None:
    assert found.masks is not None and len(found.masks) == len(numbers)
    for mask, box, number in zip(found.masks, found.boxes.tolist(), numbers, strict=True):
        rows, columns = np.nonzero(pixels == number)
        assert np.array_equal(mask, pixels == number)
        assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


# ---------------------------------------------------------------------------------- what is there


def test_each_number_is_an_object_of_the_class_in_the_table(tmp_path: Path) -> None:
    data = opened(write(tmp_path))
    assert (len(data), data.name, data.classes) == (2, f"{tmp_path.name}/train", ("dog", "cat"))
    first, second = (objects_of(data[index]) for index in range(2))
    check(first, numbered(), NUMBERS)
    check(second, numbered(), NUMBERS[:1])
    assert first.labels.tolist() == [1, 0, 1] and second.labels.tolist() == [0]
    assert first.area is not None and first.area.tolist() == [6, 5, 1]
    assert first.crowd is not None and not first.crowd.any()


@pytest.mark.parametrize("kind", ["grey16", "palette", "rgb", "rgba", "tiff"])
def test_every_format_of_numbers(kind: str, tmp_path: Path) -> None:
    offset = {"grey16": 1000, "rgb": 70_000, "rgba": 70_000}.get(kind, 0)
    rows = [f"a.png,{number + offset},cat" for number in NUMBERS]
    write(tmp_path, "\n".join(["mask,value,class", *rows, "b.png,3,dog"]))
    file, pixels = tmp_path / "train" / "masks" / "a.png", numbered(offset, np.uint32)
    if kind == "palette":
        save_palette(file, pixels.astype(np.uint8))
    elif kind == "tiff":
        file.unlink()
        save(file.with_suffix(".tif"), pixels.astype(np.uint8))
        table_of(tmp_path).write_text(table_of(tmp_path).read_text().replace("a.png", "a.tif"))
    elif kind == "grey16":
        save(file, pixels.astype(np.uint16))
    else:
        Image.fromarray(colours(pixels)).convert(kind.upper()).save(file)
    check(objects_of(opened(tmp_path)[0]), pixels, tuple(n + offset for n in NUMBERS))


def test_masks_in_folders_and_rows_in_any_order(tmp_path: Path) -> None:
    place = tmp_path / "train"
    save(place / "images" / "x" / "y.jpg", photo(1))
    save(place / "masks" / "x" / "y.png", numbered())
    rows = ["crowd, value, class, mask", "1, 200, cat, ./x\\y.png", ",3,dog,x/y.png"]
    table_of(tmp_path).write_text("\n".join([*rows, "0,7,cat,x/y.png", "0,8,cat,x/y.png"]))
    data = opened(tmp_path)
    assert data.classes == ("cat", "dog")  # of the table, sorted
    found = objects_of(data[0])
    assert found.labels.tolist() == [1, 0, 0] and found.crowd is not None
    assert found.crowd.tolist() == [False, False, True]


@pytest.mark.parametrize("how", ["file", "option"])
def test_one_class_needs_no_table(how: str, tmp_path: Path) -> None:
    write(tmp_path, "", "cell\n" if how == "file" else "")
    data = opened(tmp_path, **({} if how == "file" else {"classes": ["cell"]}))
    assert data.classes == ("cell",)
    check(objects_of(data[0]), numbered(), NUMBERS)
    assert objects_of(data[0]).labels.tolist() == [0, 0, 0]
    assert opened(tmp_path, classes=["cell"], stratify=True).presence.tolist() == [[True]] * 2


def test_other_splits_have_the_classes_of_train(tmp_path: Path) -> None:
    write(tmp_path, classes="")
    save(tmp_path / "val" / "images" / "c.jpg", photo(3))
    save(tmp_path / "val" / "masks" / "c.png", numbered())
    (tmp_path / "val" / "instances.csv").write_text(
        "mask,value,class\nc.png,3,dog\nc.png,7,dog\nc.png,200,dog\n"
    )
    data = opened(tmp_path, "val")
    assert data.classes == ("cat", "dog")
    assert objects_of(data[0]).labels.tolist() == [1, 1, 1]


def test_the_fingerprint_follows_the_table(tmp_path: Path) -> None:
    first = opened(write(tmp_path)).fingerprint
    assert opened(tmp_path).fingerprint == first
    others = {opened(tmp_path, unknown="ignore").fingerprint}
    for old, new in (("a.png,3,cat", "a.png,3,dog"), ("7,dog", "9,dog")):
        table_of(tmp_path).write_text(ROWS.replace(old, new))
        others.add(opened(tmp_path).fingerprint)
    others.add(opened(write(tmp_path, classes="dog\ncow\ncat\n")).fingerprint)
    assert len({first, *others}) == 5


# ---------------------------------------------------------------------------------------- problems


@pytest.mark.parametrize(
    "rows", [ROWS.replace("a.png,7,dog\n", ""), ROWS.replace("a.png", "c.png")]
)
def test_a_number_that_is_not_listed(rows: str, tmp_path: Path) -> None:
    data = opened(write(tmp_path, rows))
    number, place = (7, "row 4, column 0") if "a.png" in rows else (3, "row 1, column 2")
    file = tmp_path / "train" / "masks" / "a.png"
    assert said(lambda: data[0]) == (
        f"{file} has the value {number} in {place}, which is no object; correct it, or ignore such "
        "pixels with unknown='ignore'"
    )
    ignored = opened(tmp_path, unknown="ignore")
    assert len(objects_of(ignored[0]).labels) == (2 if "a.png" in rows else 0)
    assert ignored.notes == (
        f"{tmp_path.name}/train: 1 of 2 masks have values that are no class and are read with "
        f"these pixels ignored; the first is {file}",
    )
    assert len(opened(tmp_path, unknown="skip")) == 1


def test_masks_of_another_size_damaged_or_missing(tmp_path: Path) -> None:
    write(tmp_path)
    file = tmp_path / "train" / "masks" / "a.png"
    save(file, numbered()[:-1])
    assert "a.png has 5 x 9 pixels, but its image" in said(lambda: opened(tmp_path)[0])
    assert len(opened(tmp_path, mismatched="skip")) == 1
    file.write_bytes(file.read_bytes()[:60])
    assert said(lambda: opened(tmp_path)[0]).startswith(f"{file} cannot be read as a mask (")
    assert len(opened(tmp_path, broken="skip")) == 1
    file.unlink()
    assert "1 of 2 images have no mask" in said(lambda: opened(tmp_path))
    assert opened(tmp_path, unlabelled="keep")[0].target is None


TABLE_ERRORS = {
    "a.png,3,cow": ", line 2: the class 'cow' is not known; known: dog, cat",
    "a.png,3,cats": ", line 2: the class 'cats' is not known; did you mean 'cat'?",
    "a.png,0,cat": ", line 2: the value must be a whole number from 1 to 16777215, got '0'",
    "a.png,1.5,cat": ", line 2: the value must be a whole number from 1 to 16777215, got '1.5'",
    "a.png,16777216,cat": ", line 2: the value must be a whole number from 1 to 16777215, got "
    "'16777216'",
    "a.png,3,cat\na.png,3,dog": ", line 3: a.png has the value 3 twice; remove one of them",
    "a.png,3": ", line 2: 2 values for 3 columns; put values that contain a comma in quotes",
}


@pytest.mark.parametrize("row", TABLE_ERRORS)
def test_rows_that_cannot_be(row: str, tmp_path: Path) -> None:
    write(tmp_path, f"mask,value,class\n{row}\n")
    assert said(lambda: opened(tmp_path)) == f"{table_of(tmp_path)}{TABLE_ERRORS[row]}"


def test_tables_that_cannot_be(tmp_path: Path) -> None:
    remedy = "write one object per line under the header mask,value,class"
    file = table_of(write(tmp_path, "mask,value\na.png,3\n"))
    assert said(lambda: opened(tmp_path)) == f"{file} has no column 'class'; {remedy}"
    file.write_text("mask,value,class,crowd\na.png,3,cat,yes\n")
    assert said(lambda: opened(tmp_path)) == f"{file}, line 2: crowd must be 0 or 1, got 'yes'"
    file.unlink()
    assert said(lambda: opened(tmp_path)) == (
        f"{file} does not exist, but there are 2 classes; list the class of each object there "
        "under the header mask,value,class"
    )
    (tmp_path / "classes.txt").unlink()
    assert said(lambda: opened(tmp_path)) == (
        f"neither {tmp_path}/classes.txt nor {file} exists; list the classes in the first, or the "
        "class of each object in the second"
    )
    file.write_text("mask,value,class\n")
    assert said(lambda: opened(tmp_path)) == f"{file} lists no objects; {remedy}"
