from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stillhouse.data.catalogue import open_source
from stillhouse.data.formats.voc import CLASSES
from stillhouse.data.multilabel.voc import read_voc
from stillhouse.errors import UserError

# image -> the name of each object, and whether it is marked as difficult
OBJECTS = {
    "000005": [("chair", 0), ("chair", 1), ("dog", 0)],
    "000007": [("car", 1)],
    "000009": [("horse", 0), ("person", 0), ("person", 1)],
    "000012": [("tvmonitor", 0)],
    "000016": [],
}
LISTS = {
    "train": ["000012", "000005"],  # in no order
    "val": ["000007", "000009"],
    "trainval": ["000005", "000007", "000009", "000012"],
    "test": ["000016", "000009"],
}


def said(make: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        make()
    return str(error.value)


def pixels_of(name: str) -> np.ndarray:
    return np.random.default_rng(int(name)).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def annotation(name: str, objects: Sequence[tuple[str, int]]) -> str:
    """An annotation with the elements that VOC's have, parts with names of their own among them."""
    things = "".join(
        f"""
    <object>
        <name>{kind}</name>
        <pose>Left</pose>
        <truncated>0</truncated>
        <difficult>{difficult}</difficult>
        <bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox>
        <part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>
    </object>"""
        for kind, difficult in objects
    )
    return f"""<annotation>
    <folder>VOC2007</folder>
    <filename>{name}.jpg</filename>
    <source><database>The VOC2007 Database</database></source>
    <owner><name>somebody</name></owner>
    <size><width>7</width><height>5</height><depth>3</depth></size>{things}
</annotation>
"""


def write(place: Path) -> Path:
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (place / folder).mkdir(parents=True)
    for name, objects in OBJECTS.items():
        Image.fromarray(pixels_of(name)).save(place / "JPEGImages" / f"{name}.jpg")
        (place / "Annotations" / f"{name}.xml").write_text(annotation(name, objects))
    for name, images in LISTS.items():
        (place / "ImageSets" / "Main" / f"{name}.txt").write_text("\n".join(images) + "\n")
    lines = [f"{name} {'1' if name == '000007' else '-1':>2}" for name in LISTS["train"]]
    (place / "ImageSets" / "Main" / "car_train.txt").write_text("\n".join(lines))
    return place


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "VOC2007")
    return tmp_path


def labels(root: Path, split: str = "trainval", **options: Any) -> dict[str, list[str]]:
    data = read_voc(root, split, **options)
    rows = data.targets.tolist()
    return {
        Path(path).stem: [name for name, mark in zip(data.classes, row, strict=True) if mark]
        for path, row in zip(data.paths, rows, strict=True)
    }


def described(root: Path, name: str, text: str | bytes) -> Path:
    """The annotation of an image, in other words."""
    file = root / "VOC2007" / "Annotations" / f"{name}.xml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


# ---------------------------------------------------------------------------------- what is there


@pytest.mark.parametrize("place", ["VOC2007", "VOCdevkit/VOC2007", "."])
def test_images_have_the_classes_of_their_objects(place: str, tmp_path: Path) -> None:
    write(tmp_path / place)
    data = read_voc(tmp_path, "train")
    assert data.classes == CLASSES == tuple(sorted(CLASSES)) and len(CLASSES) == 20
    assert data.paths == ("JPEGImages/000012.jpg", "JPEGImages/000005.jpg")
    assert (data.name, data.notes) == ("voc/labels/train", ())
    assert labels(tmp_path, "train") == {"000012": ["tvmonitor"], "000005": ["chair", "dog"]}
    for index, name in enumerate(LISTS["train"]):
        with Image.open(tmp_path / place / "JPEGImages" / f"{name}.jpg") as image:
            wanted = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
        assert torch.equal(data[index].image, wanted)


def test_each_split_is_the_list_of_its_name(root: Path) -> None:
    for split in ("train", "val", "test"):
        assert list(labels(root, split)) == LISTS[split]
        assert open_source("voc/labels", root, split).name == f"voc/labels/{split}"
    assert labels(root, "test") == {"000016": [], "000009": ["horse", "person"]}
    prints = {read_voc(root, split).fingerprint for split in LISTS}
    assert len(prints) == 4


def test_another_list_can_be_named(root: Path) -> None:
    """As in the papers, which learn from trainval."""
    data = open_source("voc/labels", root, "train", set="trainval")
    assert data.name == "voc/labels/train"
    assert len(data) == 4 and data.classes == CLASSES


def test_difficult_objects_count_unless_told_otherwise(root: Path) -> None:
    assert labels(root)["000007"] == ["car"]
    plain = labels(root, difficult=False)
    assert plain["000007"] == []
    assert plain["000005"] == ["chair", "dog"]  # one of the two chairs is easy to see
    assert plain["000009"] == ["horse", "person"]
    described(
        root, "000007", annotation("000007", [("car", 0)]).replace("<difficult>0</difficult>", "")
    )
    assert labels(root, difficult=False)["000007"] == ["car"]  # not marked at all


@pytest.mark.parametrize("end", ["\n", "\r\n", " \n", "\n\n"])
def test_lists_end_their_lines_in_any_way(end: str, root: Path) -> None:
    file = root / "VOC2007" / "ImageSets" / "Main" / "train.txt"
    file.write_bytes((end.join(LISTS["train"]) + end).encode())
    assert list(labels(root, "train")) == LISTS["train"]


def test_the_other_year(tmp_path: Path) -> None:
    write(tmp_path / "VOCdevkit" / "VOC2012")
    assert list(labels(tmp_path, "val", year=2012)) == LISTS["val"]
    assert said(lambda: read_voc(tmp_path, "val")) == (
        f"voc/labels: {tmp_path} contains no VOC2007/JPEGImages; unpack it there; for VOC2012, "
        "which is there, set year=2012"
    )
    assert said(lambda: read_voc(tmp_path, "val", year=2010)).startswith(
        "`year` must be 2007 or 2012, got 2010"
    )


# -------------------------------------------------------------------------------------- policies


def test_images_without_a_label(root: Path) -> None:
    data = read_voc(root, "test", unlabelled="skip")
    assert data.paths == ("JPEGImages/000009.jpg",)
    assert "1 of 2 images have no labels" in data.notes[0]
    assert said(lambda: read_voc(root, "test", unlabelled="fail")).startswith(
        "voc/labels/test: 1 of 2 images have no labels, the first is "
        f"{root}/VOC2007/JPEGImages/000016.jpg"
    )


def test_names_that_are_no_class(root: Path) -> None:
    described(root, "000007", annotation("000007", [("cars", 0), ("person", 0), ("head", 1)]))
    assert said(lambda: read_voc(root, "val")) == (
        "voc/labels/val: 2 labels are not among the 20 classes, the first is 'cars' of "
        f"{root}/VOC2007/JPEGImages/000007.jpg; correct the names of these objects, or skip them "
        "with unknown='skip'; did you mean 'car'?"
    )
    assert labels(root, "val", unknown="skip")["000007"] == ["person"]


def test_files_that_are_missing(root: Path) -> None:
    (root / "VOC2007" / "Annotations" / "000007.xml").unlink()
    (root / "VOC2007" / "JPEGImages" / "000012.jpg").unlink()
    assert said(lambda: read_voc(root, "trainval")) == (
        "voc/labels/trainval: 1 of 4 images have no annotations (those of VOC 2012's test set are "
        f"not public), the first is {root}/VOC2007/Annotations/000007.xml; put them there, choose "
        "another image set with set=val, or skip them with missing='skip'"
    )
    assert said(lambda: read_voc(root, "train")).startswith(
        "voc/labels/train: 1 of 2 images do not exist, the first is "
        f"{root}/VOC2007/JPEGImages/000012.jpg"
    )
    data = read_voc(root, "trainval", missing="skip")
    assert [Path(path).stem for path in data.paths] == ["000005", "000009"]
    assert labels(root, missing="skip")["000009"] == ["horse", "person"]
    first, second = data.notes
    assert "1 of 4 images have no annotations" in first
    assert "1 of 3 images do not exist" in second


# -------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize("cut", [0, 30, 200, -3])
def test_an_annotation_that_is_cut_short(cut: int, root: Path) -> None:
    file = described(root, "000005", annotation("000005", OBJECTS["000005"])[:cut])
    message = said(lambda: read_voc(root, "train"))
    assert message.startswith(f"{file} is damaged or truncated (")
    assert message.endswith("; download it again") and "\n" not in message


@pytest.mark.parametrize(
    "data", [b"\xff\xfe\x00", b"no xml", b"<?xml version='1.0' encoding='no'?><annotation/>"]
)
def test_an_annotation_that_is_no_xml(data: bytes, root: Path) -> None:
    file = described(root, "000005", data)
    assert said(lambda: read_voc(root, "train")).startswith(f"{file} is damaged or truncated (")


def test_an_annotation_of_something_else(root: Path) -> None:
    file = described(root, "000005", "<html><body/></html>")
    assert said(lambda: read_voc(root, "train")) == (
        f"{file}: expected <annotation>, got <html>; download it again"
    )
    described(
        root, "000005", "<annotation><object><part><name>head</name></part></object></annotation>"
    )
    assert said(lambda: read_voc(root, "train")) == (
        f"{file} has an object without a name; name its class"
    )


BOMB = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10))


@pytest.mark.parametrize(
    "declared",
    [
        f'<!DOCTYPE annotation [<!ENTITY a0 "dog">{BOMB}]>',
        '<!DOCTYPE annotation [<!ENTITY a9 SYSTEM "file:///etc/hostname">]>',
        '<!DOCTYPE annotation SYSTEM "a.dtd">',
        '<?xml version="1.0"?>\n<!DOCTYPE annotation>',
    ],
    ids=["bomb", "file", "elsewhere", "plain"],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_nothing_that_is_declared_is_put_in(declared: str, encoding: str, root: Path) -> None:
    text = annotation("000005", [("&a9;" if "ENTITY" in declared else "dog", 0)])
    file = described(root, "000005", f"{declared}\n{text}".encode(encoding))
    assert said(lambda: read_voc(root, "train")) == (
        f"{file} declares a document type, which VOC files do not; download it again"
    )


def test_a_list_that_is_not_there(root: Path) -> None:
    lists = root / "VOC2007" / "ImageSets" / "Main"
    (lists / "test.txt").unlink()
    assert said(lambda: read_voc(root, "test")) == (
        f"{lists}/test.txt does not exist; choose another image set with set=NAME; known: train, "
        "trainval, val"
    )
    assert said(lambda: read_voc(root, "train", set="trainvla")).endswith(
        "set=NAME; did you mean 'trainval' or 'train'?"
    )


def test_a_list_of_one_class(root: Path) -> None:
    file = root / "VOC2007" / "ImageSets" / "Main" / "car_train.txt"
    assert said(lambda: read_voc(root, "train", set="car_train")) == (
        f"{file}, line 1: expected the name of one image, got '000012 -1'; choose an image set "
        "that is not of a single class, such as set=trainval"
    )
    file.write_text("\n")
    assert "no images are left" in said(lambda: read_voc(root, "train", set="car_train"))


def test_a_place_without_images(tmp_path: Path) -> None:
    assert said(lambda: read_voc(tmp_path, "train")) == (
        f"voc/labels: {tmp_path} contains no VOC2007/JPEGImages; unpack it there"
    )


def test_switches_are_true_or_false(root: Path) -> None:
    assert said(lambda: read_voc(root, "train", difficult="no")) == (  # type: ignore[arg-type]
        "`difficult` must be true or false, got 'no'"
    )
