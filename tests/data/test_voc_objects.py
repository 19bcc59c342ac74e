from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stillhouse.data.catalogue import open_source
from stillhouse.data.formats.voc import CLASSES
from stillhouse.data.objects.source import ObjectSource
from stillhouse.data.objects.voc import read_voc
from stillhouse.data.problems import MissingSplit
from stillhouse.errors import UserError

# image -> class, difficult, xmin, ymin, xmax, ymax of each object
OBJECTS: dict[str, list[tuple[Any, ...]]] = {
    "000005": [("chair", 0, 1, 1, 9, 6), ("chair", 1, 3, 2, 5, 5)],
    "000007": [("dog", 0, 2, 3, 2, 3)],  # of one pixel
    "000009": [("person", 0, 1.5, 2.25, 8, 6), ("chair", 0, 4, 4, 6, 6)],
    "000012": [],
}
LISTS = {
    "train": ["000009", "000005"],  # in no order
    "val": ["000007", "000012"],
    "trainval": ["000005", "000007", "000009", "000012"],
    "test": ["000012", "000009"],
}


def said(make: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        make()
    return str(error.value)


def pixels_of(name: str) -> np.ndarray:
    return np.random.default_rng(int(name)).integers(0, 256, (6, 9, 3), dtype=np.uint8)


SIZE = "<size><width>9</width><height>6</height><depth>3</depth></size>"


def annotation(objects: Sequence[tuple[Any, ...]], size: str = SIZE) -> str:
    things = "".join(
        f"""
    <object>
        <name>{kind}</name>
        <truncated>0</truncated>
        <difficult>{difficult}</difficult>
        <bndbox>
            <xmax>{x2}</xmax><xmin>{x1}</xmin><ymin>{y1}</ymin><ymax>{y2}</ymax>
        </bndbox>
        <part><name>head</name><bndbox><xmin>7</xmin></bndbox></part>
    </object>"""
        for kind, difficult, x1, y1, x2, y2 in objects
    )
    return f"<annotation>\n    <folder>VOC2007</folder>{size}{things}\n</annotation>\n"


def write(place: Path, suffix: str = "png", lists: Sequence[str] = tuple(LISTS)) -> Path:
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (place / folder).mkdir(parents=True)
    for name, objects in OBJECTS.items():
        Image.fromarray(pixels_of(name)).save(place / "JPEGImages" / f"{name}.{suffix}")
        (place / "Annotations" / f"{name}.xml").write_text(annotation(objects))
    for name in lists:
        (place / "ImageSets" / "Main" / f"{name}.txt").write_text("\n".join(LISTS[name]) + "\n")
    return place


def described(place: Path, name: str, text: str) -> Path:
    """The annotation of an image, in other words."""
    file = place / "Annotations" / f"{name}.xml"
    file.write_text(text)
    return file


def rows_of(source: ObjectSource) -> dict[str, list[tuple[Any, ...]]]:
    """Class, difficult and box of the objects of each image."""
    found = {}
    for index, path in enumerate(source.paths):
        own = source.targets.rows(slice(index, index + 1))
        assert own.difficult is not None and own.crowd is None and own.area is None
        parts = (own.labels.tolist(), own.difficult.tolist(), own.boxes.tolist())
        found[Path(path).stem] = [
            (source.classes[label], difficult, *box)
            for label, difficult, box in zip(*parts, strict=True)
        ]
    return found


def wanted(split: str) -> dict[str, list[tuple[Any, ...]]]:
    """VOC counts pixels from 1, and its last pixel is inside of the box."""
    return {
        name: [(kind, bool(d), x1 - 1, y1 - 1, x2, y2) for kind, d, x1, y1, x2, y2 in OBJECTS[name]]
        for name in LISTS[split]
    }


# ---------------------------------------------------------------------------------- what is there


@pytest.mark.parametrize("place", ["VOC2007", "VOCdevkit/VOC2007"])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_images_have_their_objects(place: str, split: str, tmp_path: Path) -> None:
    write(tmp_path / place, "jpg")
    source = read_voc(tmp_path, split)
    assert source.classes == CLASSES and len(CLASSES) == 20
    assert list(rows_of(source)) == LISTS[split]  # in their order
    assert rows_of(source) == wanted(split)
    assert (source.name, source.notes) == (f"voc/objects/{split}", ())
    assert source.shapes.tolist() == [[6, 9]] * 2
    assert source[0].image.shape == (3, 6, 9)


def test_the_folder_of_a_year_may_be_the_path(tmp_path: Path) -> None:
    assert read_voc(write(tmp_path / "VOC2007"), "train").classes == CLASSES


def test_the_other_year(tmp_path: Path) -> None:
    write(tmp_path / "VOC2012")
    assert rows_of(read_voc(tmp_path, "val", year=2012)) == wanted("val")
    assert "for VOC2012, which is there, set year=2012" in said(lambda: read_voc(tmp_path, "val"))
    assert said(lambda: read_voc(tmp_path, "val", year=2010)).startswith("`year` must be 2007")


@pytest.mark.parametrize("suffix", ["png", "jpeg", "JPG"])
def test_folders_of_ones_own_have_the_classes_of_train(suffix: str, tmp_path: Path) -> None:
    write(tmp_path, suffix)
    source = read_voc(tmp_path, "train")
    assert source.classes == ("chair", "person")  # sorted
    assert rows_of(source) == wanted("train")
    assert read_voc(tmp_path, "test").classes == source.classes
    assert all(path.endswith(f".{suffix}") for path in source.paths)
    if suffix == "png":
        image = torch.from_numpy(pixels_of("000009")).permute(2, 0, 1)
        assert torch.equal(source[0].image, image)
    assert said(lambda: read_voc(tmp_path, "val")) == (
        "voc/objects/val: 1 of 1 objects are of none of the 2 classes, the first is 'dog' in "
        f"{tmp_path}/Annotations/000007.xml, object 1; correct the names of these objects, "
        "or list all with classes=[NAME, ...], or skip them with unknown='skip'"
    )
    named = ["dog", "chair", "person"]
    assert read_voc(tmp_path, "train", classes=named).classes == tuple(named)
    assert rows_of(read_voc(tmp_path, "val", classes=named)) == wanted("val")


def test_train_may_be_called_trainval(tmp_path: Path) -> None:
    """Where there is no list of train, neither is there one of val."""
    write(tmp_path, lists=("trainval", "test"))
    source = read_voc(tmp_path, "train")
    assert source.classes == ("chair", "dog", "person")
    assert rows_of(source) == wanted("trainval")
    assert rows_of(read_voc(tmp_path, "test")) == wanted("test")
    assert said(lambda: read_voc(tmp_path, "val")) == (
        f"{tmp_path}/ImageSets/Main/val.txt does not exist; hold out samples of train with "
        "data.holdout=COUNT, or choose another image set with set=NAME; known: test, trainval"
    )


def test_a_list_of_test_images_is_optional_for_folders_of_ones_own(tmp_path: Path) -> None:
    write(tmp_path / "mine", lists=("train", "val"))
    with pytest.raises(MissingSplit, match=r"Main/test.txt does not exist; write the names of "):
        read_voc(tmp_path / "mine", "test")
    write(tmp_path / "VOC2007", lists=("train", "val"))
    with pytest.raises(UserError, match=r"test.txt does not exist; choose another") as error:
        read_voc(tmp_path, "test")
    assert not isinstance(error.value, MissingSplit)


def test_another_list_can_be_named(tmp_path: Path) -> None:
    write(tmp_path / "VOC2007")
    source = open_source("voc/objects", tmp_path, "train", set="trainval")
    assert isinstance(source, ObjectSource) and rows_of(source) == wanted("trainval")
    assert "did you mean 'trainval'" in said(lambda: read_voc(tmp_path, "train", set="trainvla"))


@pytest.mark.parametrize("size", ["", "<size/>", SIZE.replace("9", "0").replace("6", "0")])
def test_sizes_may_be_absent(size: str, tmp_path: Path) -> None:
    write(tmp_path)
    described(tmp_path, "000005", annotation(OBJECTS["000005"], size))
    source = read_voc(tmp_path, "train")
    assert source.shapes.tolist() == [[6, 9]] * 2 and rows_of(source) == wanted("train")


@pytest.mark.parametrize(("written", "flag"), [("0", False), ("1", True), ("", False)])
def test_what_is_difficult(written: str, flag: bool, tmp_path: Path) -> None:
    write(tmp_path)
    described(tmp_path, "000005", annotation([("chair", written, 1, 1, 2, 2)]))
    assert rows_of(read_voc(tmp_path, "train"))["000005"] == [("chair", flag, 0, 0, 2, 2)]
    text = annotation([("chair", 1, 1, 1, 2, 2)]).replace("<difficult>1</difficult>", "")
    described(tmp_path, "000005", text)
    assert rows_of(read_voc(tmp_path, "train"))["000005"][0][1] is False


# --------------------------------------------------------------------------------------- mistakes


def test_boxes_from_zero_reach_outside(tmp_path: Path) -> None:
    write(tmp_path)
    described(tmp_path, "000005", annotation([("chair", 0, 0, 0, 5, 5)]))
    source = read_voc(tmp_path, "train")
    assert rows_of(source)["000005"] == [("chair", False, 0, 0, 5, 5)]
    assert "1 of 3 boxes reach outside of their image and are clipped" in source.notes[0]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("<xmin>3</xmin>", "<xmin>three</xmin>", ", object 2: xmin must be a number, got 'three'"),
        ("<xmin>3</xmin>", "<xmin/>", ", object 2: xmin must be a number, got ''"),
        ("<xmin>3</xmin>", "", ", object 2: xmin must be a number, got None"),
        ("<height>6", "<height>six", ": height and width of <size> must be a number, got 'six'"),
        ("<width>9", "<width>9.5", ": height and width of <size> must be whole numbers, got '9.5'"),
        ("<width>9", "<width>nan", ": height and width of <size> must be whole numbers, got 'nan'"),
        ("<width>9", "<width>-9", ": height and width of <size> must be whole numbers, got '-9'"),
    ],
)
def test_numbers_that_are_none(old: str, new: str, words: str, tmp_path: Path) -> None:
    write(tmp_path)
    text = annotation(OBJECTS["000005"])
    assert old in text
    file = described(tmp_path, "000005", text.replace(old, new))
    message = said(lambda: read_voc(tmp_path, "train"))
    assert message == f"{file}{words}; correct it, or download it again"


def test_a_box_that_is_not_finite(tmp_path: Path) -> None:
    write(tmp_path)
    text = annotation(OBJECTS["000005"]).replace("<xmin>3<", "<xmin>nan<")
    file = described(tmp_path, "000005", text)
    assert said(lambda: read_voc(tmp_path, "train")) == (
        f"{file}, object 2: the numbers of the box must be finite, got "
        "[nan, 1.0, 5.0, 5.0]; correct them"
    )


@pytest.mark.parametrize("cut", [0, 30, -3])
def test_an_annotation_that_is_cut_short(cut: int, tmp_path: Path) -> None:
    write(tmp_path)
    file = described(tmp_path, "000005", annotation(OBJECTS["000005"])[:cut])
    message = said(lambda: read_voc(tmp_path, "train"))
    assert message.startswith(f"{file} is damaged or truncated (") and "\n" not in message


def test_files_that_are_missing(tmp_path: Path) -> None:
    write(tmp_path / "VOC2007")
    (tmp_path / "VOC2007" / "Annotations" / "000005.xml").unlink()
    (tmp_path / "VOC2007" / "JPEGImages" / "000007.png").unlink()
    assert said(lambda: read_voc(tmp_path, "train")) == (
        "voc/objects/train: 1 of 2 images have no annotations (those of VOC 2012's test set are "
        f"not public), the first is {tmp_path}/VOC2007/Annotations/000005.xml; put them there, "
        "choose another image set with set=val, or skip them with missing='skip'"
    )
    source = read_voc(tmp_path, "train", set="trainval", missing="skip")
    assert list(rows_of(source)) == ["000009", "000012"]
    first, second = source.notes
    assert "1 of 4 images have no annotations" in first
    assert f"the first is {tmp_path}/VOC2007/JPEGImages/000007.jpg" in second


def test_train_without_objects(tmp_path: Path) -> None:
    write(tmp_path)
    for name in LISTS["train"]:
        described(tmp_path, name, annotation([]))
    assert said(lambda: read_voc(tmp_path, "val")) == (
        f"voc/objects: the images of train in {tmp_path} have no objects, from which classes would "
        "be taken; list them with classes=[NAME, ...]"
    )
    assert "`classes` must be a list" in said(lambda: read_voc(tmp_path, "val", classes="dog"))
