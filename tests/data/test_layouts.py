"""The reader of a folder is found by the names of its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from stillhouse.data.catalogue import entry
from stillhouse.data.layouts import LAYOUTS, find_layouts
from stillhouse.errors import UserError

FOUND = {
    "folder": ["train/cat/a.jpg", "train/dog/b.jpg", "val/cat/c.jpg"],
    "csv": {"train.csv": "path,label\na.jpg,cat\n"},
    "csv/labels": {"train.csv": "path,labels\na.jpg,cat;dog\n"},
    "csv/objects": {"train.csv": "path,label,x1,y1,x2,y2\n"},
    "shards": ["train/0.tar"],
    "cifar10": ["cifar-10-batches-py/data_batch_1"],
    "cifar100": ["cifar-100-python.tar.gz"],
    "nuswide/labels": ["ConceptsList/list.txt"],
    "yolo/objects": ["data.yaml", "train/images/a.jpg", "train/labels/a.txt"],
    "ade20k/semantic": ["annotations/training/a.png", "images/training/a.jpg"],
    "camvid/semantic": ["train/a.png", "trainannot/a.png"],
    "folder/semantic": ["train/images/a.jpg", "train/masks/a.png"],
    "folder/instances": ["train/images/a.jpg", "train/masks/a.png", "train/instances.csv"],
}
SHARED = {
    ("coco/labels", "coco/objects", "coco/instances"): [
        ["annotations/instances_train2017.json"],
        ["train/_annotations.coco.json", "train/a.jpg"],
    ],
    ("voc/labels", "voc/objects"): [["VOC2007/JPEGImages/a.jpg", "VOC2007/Annotations/a.xml"]],
    ("voc/labels", "voc/objects", "voc/semantic"): [
        ["JPEGImages/a.jpg", "Annotations/a.xml", "SegmentationClass/a.png"]
    ],
    ("cityscapes/semantic", "cityscapes/instances"): [
        ["leftImg8bit/train/a/b.png", "gtFine/train/a/b.png"]
    ],
}


def write(root: Path, files: list[str] | dict[str, str]) -> Path:
    contents = files if isinstance(files, dict) else dict.fromkeys(files, "")
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_every_layout_has_a_reader_and_a_case() -> None:
    assert {entry(name).name for name in LAYOUTS} == LAYOUTS.keys()
    assert {*FOUND, *(name for names in SHARED for name in names)} == LAYOUTS.keys()


@pytest.mark.parametrize("name", FOUND)
def test_a_layout_is_that_of_one_reader(tmp_path: Path, name: str) -> None:
    assert find_layouts(write(tmp_path, FOUND[name])) == [name]


@pytest.mark.parametrize(
    ("names", "files"), [(names, files) for names, cases in SHARED.items() for files in cases]
)
def test_a_layout_of_several_readers(
    tmp_path: Path, names: tuple[str, ...], files: list[str]
) -> None:
    assert find_layouts(write(tmp_path, files)) == [*names]


def test_what_has_no_layout_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no folder '.*nosuch'; correct it"):
        find_layouts(tmp_path / "nosuch")
    write(tmp_path, ["cat/a.txt", "notes.txt"])
    with pytest.raises(UserError, match=r"only cat/, notes\.txt; put images into train/CLASS"):
        find_layouts(tmp_path)


def test_classes_without_splits_are_one_part(tmp_path: Path) -> None:
    assert find_layouts(write(tmp_path, ["cat/a.jpg", "dog/b.jpg", "notes.txt"])) == ["folder"]
