import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from stillhouse.build.splits import find_split
from stillhouse.data.catalogue import open_source
from stillhouse.data.multilabel.folders import read_folders
from stillhouse.errors import UserError
from stillhouse.recipes.schema import Data


def said(make: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        make()
    return str(error.value)


def tensor_of(seed: int) -> Tensor:
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def paint(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(tensor_of(seed).permute(1, 2, 0).numpy()).save(path)


TRAIN = {"cat/1.png": 1, "dog/1.png": 1, "emu/1.png": 1, "dog/2.png": 2, "emu/in/2.png": 3}
VAL = {"dog/9.bmp": 9, "cat/9.bmp": 9}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, files in (("train", TRAIN), ("val", VAL)):
        for path, seed in files.items():
            paint(tmp_path / "zoo" / split / path, seed)
    return tmp_path / "zoo"


def labels(root: Path, split: str = "train", **options: Any) -> dict[str, list[str]]:
    data = read_folders(root, split, **options)
    rows = data.targets.tolist()
    return {
        path: [name for name, mark in zip(data.classes, row, strict=True) if mark]
        for path, row in zip(data.paths, rows, strict=True)
    }


# --------------------------------------------------------------------------------- what is there


def test_one_name_in_several_folders_is_one_image(root: Path) -> None:
    data = read_folders(root, "train")
    assert (data.name, data.classes, data.notes) == ("zoo/train", ("cat", "dog", "emu"), ())
    assert labels(root) == {
        "cat/1.png": ["cat", "dog", "emu"],
        "dog/2.png": ["dog"],
        "emu/in/2.png": ["emu"],  # lies deeper, and is another image
    }
    for index, seed in enumerate((1, 2, 3)):
        assert torch.equal(data[index].image, tensor_of(seed))
        assert data[index].key == index


def test_names_at_the_same_depth_are_the_same(root: Path) -> None:
    paint(root / "train" / "cat" / "in" / "2.png", 3)
    assert labels(root)["cat/in/2.png"] == ["cat", "emu"]


def test_other_splits_have_the_classes_of_train(root: Path) -> None:
    assert labels(root, "val") == {"cat/9.bmp": ["cat", "dog"]}
    assert read_folders(root, "val").classes == ("cat", "dog", "emu")
    for path in sorted((root / "train").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (root / "train").rmdir()
    assert read_folders(root, "val").classes == ("cat", "dog")  # its own, where there is no train


def test_links_are_the_same_without_a_look_inside(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "train" / "cat" / "2.png").symlink_to(root / "train" / "dog" / "2.png")
    os.link(root / "train" / "dog" / "2.png", root / "train" / "emu" / "2.png")
    (root / "train" / "dog" / "1.png").unlink()
    (root / "train" / "emu" / "1.png").unlink()
    monkeypatch.setattr(Path, "read_bytes", None)
    assert labels(root)["cat/2.png"] == ["cat", "dog", "emu"]


def test_an_image_beside_the_folders_has_no_label(root: Path) -> None:
    paint(root / "train" / "5.png", 5)
    (root / "train" / "list.csv").write_text("5.png,\n")
    paint(root / "train" / ".5.png", 5)
    assert labels(root)["5.png"] == []
    data = read_folders(root, "train", unlabelled="skip")
    assert "5.png" not in data.paths and len(data) == 3
    (note,) = data.notes
    assert note == (
        f"zoo/train: 1 of 4 images have no labels and are skipped; the first is {root}/train/5.png"
    )
    assert "1 of 4 images have no labels" in said(
        lambda: read_folders(root, "train", unlabelled="fail")
    )


def test_fingerprint_follows_the_folders(root: Path) -> None:
    first = read_folders(root, "train").fingerprint
    assert read_folders(root, "train").fingerprint == first
    moved = (root / "train" / "emu" / "1.png").rename(root / "train" / "emu" / "7.png")
    assert read_folders(root, "train").fingerprint != first
    moved.rename(root / "train" / "emu" / "1.png")
    assert read_folders(root, "train").fingerprint == first
    assert read_folders(root, "val").fingerprint != first


def test_the_catalogue_opens_it(root: Path) -> None:
    data = open_source("folder/labels", root, "train", compare="sizes", unlabelled="skip")
    assert len(data) == 3
    assert said(lambda: open_source("folder/labels", root, "train", missing="skip")) == (
        "data.train: folder/labels has no option 'missing'"
    )
    assert find_split(Data("folder/labels", root), "test") is None
    paint(root / "test" / "cat" / "1.png", 8)
    test = find_split(Data("folder/labels", root), "test")
    assert test is not None and len(test) == 1 and len(test.classes) == 3


# ----------------------------------------------------------------------------- what is left out


def test_a_folder_that_train_does_not_have(root: Path) -> None:
    paint(root / "val" / "dgo" / "9.bmp", 9)
    paint(root / "val" / "dgo" / "8.png", 8)
    message = said(lambda: read_folders(root, "val"))
    assert message == (
        "zoo/val: 2 labels are not among the 3 classes, the first is 'dgo' of "
        f"{root}/val/cat/9.bmp; make a folder of the same name in {root}/train, or skip them with "
        "unknown='skip'; did you mean 'dog'?"
    )
    assert labels(root, "val", unknown="skip") == {"cat/9.bmp": ["cat", "dog"], "dgo/8.png": []}


def test_damaged_images(root: Path) -> None:
    (root / "train" / "dog" / "2.png").write_text("no image")
    assert "dog/2.png cannot be read" in said(lambda: read_folders(root, "train")[1])
    data = read_folders(root, "train", broken="skip")
    assert data.paths == ("cat/1.png", "emu/in/2.png") and "1 of 3" in data.notes[0]


# -------------------------------------------------------------------------------------- mistakes


def test_one_name_of_different_images(root: Path) -> None:
    paint(root / "train" / "cat" / "2.png", 77)
    with (root / "train" / "emu" / "1.png").open("ab") as file:
        file.write(b"more")
    assert said(lambda: read_folders(root, "train")) == (
        f"{root}/train: 2 files have the name of a different image of another class, the first "
        "are cat/1.png and emu/1.png; give each image a name of its own"
    )


def test_files_of_one_size_are_compared_byte_by_byte(root: Path) -> None:
    file = root / "train" / "emu" / "1.png"
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(data)
    assert "the first are cat/1.png and emu/1.png" in said(lambda: read_folders(root, "train"))
    assert labels(root, compare="sizes")["cat/1.png"] == ["cat", "dog", "emu"]
    with file.open("ab") as longer:
        longer.write(b"x")
    assert "emu/1.png" in said(lambda: read_folders(root, "train", compare="sizes"))


def test_places_that_are_none(root: Path) -> None:
    assert (
        said(lambda: read_folders(root, "vla")) == f"{root}/vla does not exist; did you mean 'val'?"
    )
    (root / "test").mkdir()
    assert said(lambda: read_folders(root, "test")).startswith(
        f"{root}/test is empty; it needs one fol"
    )
    (root / "test" / "cat").mkdir()
    assert (
        said(lambda: read_folders(root, "test")) == f"zoo/test: no images are left in {root}/test"
    )


def test_wrong_words(root: Path) -> None:
    assert said(lambda: read_folders(root, "train", compare="size")) == (
        "`compare` must be 'bytes' or 'sizes', got 'size'; did you mean 'sizes'?"
    )
    assert said(lambda: read_folders(root, "train", unlabelled="skp")).endswith(
        "did you mean 'skip'?"
    )
