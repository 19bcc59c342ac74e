from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stillhouse.data.catalogue import open_source
from stillhouse.data.objects.source import ObjectSource
from stillhouse.data.objects.yolo import read_yolo
from stillhouse.data.objects.yolo_config import label_file
from stillhouse.data.problems import MissingSplit
from stillhouse.errors import UserError

CLASSES = ("cat", "dog", "no")
NAMES = "names: [cat, dog, no]\n"  # `no` is a word here, not a truth value
SPLITS = "train: images/train\nval: images/val\n"
# split -> image -> height, width, and class, x, y, width, height of its objects
DATA: dict[str, dict[str, tuple[int, int, list[tuple[float, ...]]]]] = {
    "train": {
        "b": (10, 20, [(1, 0.5, 0.25, 0.5, 0.5), (0, 0.25, 0.5, 0.125, 1)]),
        "a": (16, 8, [(2, 0.5, 0.5, 1, 1)]),
        "c": (10, 10, []),
    },
    "val": {"d": (10, 20, [(1, 0.75, 0.75, 0.25, 0.25)])},
}


def said(make: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        make()
    return str(error.value)


def pixels_of(name: str, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(ord(name)).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write(
    root: Path, config: str = NAMES + SPLITS, images: str = "images/{}", labels: str = "labels/{}"
) -> Path:
    """Images, a text file for each that has objects, and the YAML file."""
    for split, samples in DATA.items():
        places = [root / place.format(split) for place in (images, labels)]
        for place in places:
            place.mkdir(parents=True, exist_ok=True)
        for name, (height, width, objects) in samples.items():
            Image.fromarray(pixels_of(name, height, width)).save(places[0] / f"{name}.png")
            lines = [" ".join(map(str, row)) for row in objects]
            if lines:
                (places[1] / f"{name}.txt").write_text("\n".join(lines) + "\n")
    (root / "data.yaml").write_text(config)
    return root


def rows_of(source: ObjectSource) -> dict[str, list[tuple[Any, ...]]]:
    """Class and box of the objects of each image."""
    found = {}
    for index, path in enumerate(source.paths):
        own = source.targets.rows(slice(index, index + 1))
        pairs = zip(own.labels.tolist(), own.boxes.tolist(), strict=True)
        found[Path(path).stem] = [(source.classes[label], *box) for label, box in pairs]
    return found


def wanted(split: str) -> dict[str, list[tuple[Any, ...]]]:
    return {
        name: [
            (
                CLASSES[int(kind)],
                (x - w / 2) * width,
                (y - h / 2) * height,
                (x + w / 2) * width,
                (y + h / 2) * height,
            )
            for kind, x, y, w, h in objects
        ]
        for name, (height, width, objects) in DATA[split].items()
    }


# ---------------------------------------------------------------------------------- what is there


def test_images_have_their_objects(tmp_path: Path) -> None:
    source = read_yolo(write(tmp_path), "train")
    assert source.classes == CLASSES
    assert source.paths == tuple(f"images/train/{name}.png" for name in "abc")
    assert rows_of(source) == wanted("train")
    assert source.shapes.tolist() == [[16, 8], [10, 20], [10, 10]]
    assert (source.name, source.notes) == ("yolo/objects/train", ())
    image = torch.from_numpy(pixels_of("b", 10, 20)).permute(2, 0, 1)
    assert torch.equal(source[1].image, image)
    assert source.targets.crowd is None and source.targets.area is None
    val = open_source("yolo/objects", tmp_path, "val")
    assert isinstance(val, ObjectSource) and rows_of(val) == wanted("val")


@pytest.mark.parametrize(
    "names",
    [
        "names:\n  - cat\n  - dog\n  - no\n",
        "names:\n  0: cat\n  1: dog\n  2: no\n",
        "names: {1: dog, 2: 'no', 0: \"cat\"}\n",
        "nc: 3\nnames: [\n  'cat',  # a comment\n  dog,\n  no,\n]\nroboflow:\n  version: 1\n",
    ],
)
def test_names_are_a_list_or_a_mapping(names: str, tmp_path: Path) -> None:
    assert read_yolo(write(tmp_path, names + SPLITS), "train").classes == CLASSES


@pytest.mark.parametrize(
    ("config", "images", "labels"),
    [
        ("path: sets\ntrain: images/train\nval: images/val\n", "sets/images/{}", "sets/labels/{}"),
        ("path: ../elsewhere\n" + SPLITS, "images/{}", "labels/{}"),
        ("train: ../train/images\nvalid: ../val/images\n", "{}/images", "{}/labels"),
        ("train: [images/train]\nval: images/val/\n", "images/{}", "labels/{}"),
        ("train: .\\images\\train\nval: images/val\n", "images/{}", "labels/{}"),
        ("train: plain/train\nval: plain/val\n", "plain/{}", "plain/{}"),
        ("train: images/x/images/train\nval: .\n", "images/x/images/{}", "images/x/labels/{}"),
    ],
)
def test_places_of_images(config: str, images: str, labels: str, tmp_path: Path) -> None:
    source = read_yolo(write(tmp_path / "data", NAMES + config, images, labels), "train")
    assert rows_of(source) == wanted("train")
    assert source.paths[0] == f"{images.format('train')}/a.png"


def test_several_folders_of_one_split(tmp_path: Path) -> None:
    config = "train: [images/train, images/val]\nval: images/val\n"
    source = read_yolo(write(tmp_path, NAMES + config), "train")
    assert rows_of(source) == {**wanted("train"), **wanted("val")}


@pytest.mark.parametrize("start", ["./", "", "images/train/", "{root}/images/train/"])
def test_a_split_may_be_a_list_of_images(start: str, tmp_path: Path) -> None:
    """Relative to the list or to the data set, or absolute."""
    write(tmp_path, NAMES + "train: images/train/list.txt\nval: images/val\n")
    start = start.format(root=tmp_path)
    file = tmp_path / "images" / "train" / "list.txt"
    file.write_text(f"{start}b.png\n{start}c.png\n")
    source = read_yolo(tmp_path, "train")
    assert source.paths == ("images/train/b.png", "images/train/c.png")
    assert rows_of(source) == {name: wanted("train")[name] for name in "bc"}


def test_images_may_lie_outside_of_the_folder(tmp_path: Path) -> None:
    write(tmp_path / "far")
    place = tmp_path / "far" / "images" / "train"
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "mine.yaml").write_text(f"{NAMES}train: {place}\nval: {place}\n")
    source = read_yolo(tmp_path / "near", "train", config="mine.yaml")
    assert rows_of(source) == wanted("train") and source[0].image.shape == (3, 16, 8)


def test_labels_take_the_place_of_the_last_folder_of_images() -> None:
    assert label_file(Path("/images/a/images/b/c.d.jpg")) == Path("/images/a/labels/b/c.d.txt")
    assert label_file(Path("/a/myimages/c.jpg")) == Path("/a/myimages/c.txt")
    assert label_file(Path("/a/b/images.jpg")) == Path("/a/b/images.txt")


def test_turned_images_are_measured_upright(tmp_path: Path) -> None:
    write(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = pixels_of("d", 10, 20)
    Image.fromarray(stored).save(tmp_path / "images" / "val" / "d.png", exif=exif)
    source = read_yolo(tmp_path, "val")
    assert source.shapes.tolist() == [[20, 10]] and source[0].image.shape == (3, 20, 10)
    assert source.targets.boxes.tolist() == [[6.25, 12.5, 8.75, 17.5]]


# ------------------------------------------------------------------------------------------- lines


def labelled(root: Path, text: str) -> Path:
    """The text file of the image d, 10 high and 20 wide, in other words."""
    write(root)
    file = root / "labels" / "val" / "d.txt"
    file.write_text(text)
    return file


def test_polygons_become_their_boxes(tmp_path: Path) -> None:
    labelled(tmp_path, "1 0.5 0.1 0.75 0.5 0.25 0.9\n0 0.5 0.5 0.5 0.5\n2 .1 .2 .3 .2 .3 .4 .1 .4")
    assert rows_of(read_yolo(tmp_path, "val")) == {
        "d": [
            ("dog", 5, 1, 15, 9),
            ("cat", 5, 2.5, 15, 7.5),
            ("no", 2, 2, 6, 4),
        ]
    }


def test_numbers_may_be_written_in_any_way(tmp_path: Path) -> None:
    labelled(tmp_path, "\n 1.0\t5e-1  .5 0.5 0.5 \r\n\n")
    assert rows_of(read_yolo(tmp_path, "val")) == {"d": [("dog", 5, 2.5, 15, 7.5)]}


def test_boxes_may_reach_outside(tmp_path: Path) -> None:
    file = labelled(tmp_path, "1 0.5 0.5 0.5 0.5\n1 0.9 0.5 0.4 0.5\n")
    source = read_yolo(tmp_path, "val")
    assert source.targets.boxes[1].tolist() == [14, 2.5, 20, 7.5]
    assert source.notes == (
        "yolo/objects/val: 1 of 2 boxes reach outside of their image and are clipped; the first is "
        f"{file}, line 2",
    )


FORM = "write one object per line: class, x and y of the centre, width, height"
COUNT = "expected 5 numbers, or an odd number from 7 on for a polygon, got"
FRACTIONS = "coordinates must be fractions of width and height, got"
DIVIDE = "divide them by the size of the image"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("cat 0.5 0.5 0.5 0.5", f"expected numbers, got 'cat 0.5 0.5 0.5 0.5'; {FORM}"),
        ("1, 0.5, 0.5, 0.5, 0.5", f"expected numbers, got '1, 0.5, 0.5, 0.5, 0.5'; {FORM}"),
        ("1 0.5 0.5 0.5", f"{COUNT} 4; {FORM}"),
        ("1", f"{COUNT} 1; {FORM}"),
        ("1 0.5 0.5 0.5 0.5 0.9", f"{COUNT} 6; {FORM}"),
        ("1 0.1 0.2 0.3 0.4 0.5 0.6 0.7", f"{COUNT} 8; {FORM}"),
        ("1.5 0.5 0.5 0.5 0.5", f"the class must be a whole number, got 1.5; {FORM}"),
        ("-1 0.5 0.5 0.5 0.5", f"the class must be a whole number, got -1; {FORM}"),
        ("nan 0.5 0.5 0.5 0.5", f"the class must be a whole number, got nan; {FORM}"),
        ("1 10 5 4 4", f"{FRACTIONS} '1 10 5 4 4'; {DIVIDE}"),
        ("1 0.5 nan 0.5 0.5", f"{FRACTIONS} '1 0.5 nan 0.5 0.5'; {DIVIDE}"),
        ("1 0.5 0.5 inf 0.5", f"{FRACTIONS} '1 0.5 0.5 inf 0.5'; {DIVIDE}"),
        ("1 .1 .2 nan .4 .5 .6", f"{FRACTIONS} '1 .1 .2 nan .4 .5 .6'; {DIVIDE}"),
    ],
)
def test_lines_that_cannot_be(line: str, words: str, tmp_path: Path) -> None:
    file = labelled(tmp_path, f"1 0.5 0.5 0.5 0.5\n\n{line}\n")
    assert said(lambda: read_yolo(tmp_path, "val")) == f"{file}, line 3: {words}"


def test_negative_sides_are_reversed_corners(tmp_path: Path) -> None:
    labelled(tmp_path, "1 0.5 0.5 -0.5 0.5\n")
    assert "have x2 < x1 or y2 < y1" in said(lambda: read_yolo(tmp_path, "val"))
    swapped = read_yolo(tmp_path, "val", reversed="swap")
    assert swapped.targets.boxes.tolist() == [[5, 2.5, 15, 7.5]]


def test_classes_without_a_name(tmp_path: Path) -> None:
    file = labelled(tmp_path, "2 0.5 0.5 0.5 0.5\n3 0.5 0.5 0.5 0.5\n")
    assert said(lambda: read_yolo(tmp_path, "val")) == (
        "yolo/objects/val: 1 of 2 objects are of none of the 3 classes, the first is class 3 in "
        f"{file}, line 2; add their names to the YAML file, or skip them with unknown='skip'"
    )
    assert len(read_yolo(tmp_path, "val", unknown="skip").targets.labels) == 1


def test_labels_that_are_all_missing(tmp_path: Path) -> None:
    write(tmp_path, labels="annotations/{}")
    assert said(lambda: read_yolo(tmp_path, "train")) == (
        "yolo/objects/train: none of the 3 images has a file of labels, the first would be "
        f"{tmp_path}/labels/train/a.txt; put them there"
    )


def test_a_broken_image_has_no_size(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "images" / "train" / "b.png"
    path.write_bytes(b"")
    assert f"1 of 3 images cannot be read, the first is {path}" in said(
        lambda: read_yolo(tmp_path, "train")
    )
    source = read_yolo(tmp_path, "train", broken="skip")
    assert rows_of(source) == {name: wanted("train")[name] for name in "ac"}


# --------------------------------------------------------------------------------------- YAML file


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("names: [cat", " is not valid YAML ("),
        ("- cat\n- dog\n", " must be a mapping; write `names`, `train` and `val` there"),
        ("", " must be a mapping; write `names`, `train` and `val` there"),
        (SPLITS, ": `names` must be a list of classes, got None; write "),
        ("names: cat\n" + SPLITS, ": `names` must be a list of classes, got 'cat'; write "),
        ("names: [[cat]]\n" + SPLITS, ": `names` must be a list of classes, got [['cat']]; write "),
        (
            "names: {1: cat, 2: dog}\n" + SPLITS,
            ": the keys of `names` must be 0 to 1, got 1, 2; number the classes",
        ),
        ("names: [cat, dog, cat]\n" + SPLITS, ": `names` has 'cat' twice; rename one of them"),
        (NAMES + "val: images/val\n", " has no `train`; write its folder of images there"),
        (
            NAMES + "train: {a: b}\n",
            ": `train` must be a folder or a list of folders, got {'a': 'b'}",
        ),
        (
            NAMES + "train: images/trian\n",
            ": `train` is images/trian, but {root}/images/trian does not exist; correct it",
        ),
    ],
)
def test_a_file_that_cannot_be(config: str, words: str, tmp_path: Path) -> None:
    write(tmp_path, config)
    message = said(lambda: read_yolo(tmp_path, "train"))
    words = words.replace("{root}", str(tmp_path))
    assert message.startswith(f"{tmp_path}/data.yaml{words}") and "\n" not in message


def test_splits_that_are_missing(tmp_path: Path) -> None:
    write(tmp_path, NAMES + "train: images/train\ntest:\n")
    with pytest.raises(MissingSplit, match=r"has no `test`; write its folder of images there$"):
        read_yolo(tmp_path, "test")
    assert said(lambda: read_yolo(tmp_path, "val")) == (
        f"{tmp_path}/data.yaml has no `val`; write its folder of images there, or hold out samples "
        "of train with data.holdout=COUNT"
    )
    (tmp_path / "data.yaml").unlink()
    assert said(lambda: read_yolo(tmp_path, "train")) == (
        f"{tmp_path}/data.yaml does not exist; put the YAML file of the data set there, or name it "
        "with config=FILE"
    )


def test_lists_and_folders_without_images(tmp_path: Path) -> None:
    write(tmp_path, NAMES + "train: list.txt\nval: labels\n")
    assert said(lambda: read_yolo(tmp_path, "val")) == (
        f"{tmp_path}/labels contains no images; put them there"
    )
    (tmp_path / "list.txt").write_text("images/train/a.png\nimages/train/b\n")
    assert said(lambda: read_yolo(tmp_path, "train")) == (
        f"{tmp_path}/list.txt, line 2: 'images/train/b' is not an image; correct it"
    )
    (tmp_path / "list.txt").write_text("images/train/a.png\nimages/train/z.png\n")
    assert said(lambda: read_yolo(tmp_path, "train")) == (
        f"yolo/objects/train: 1 of 2 images do not exist, the first is {tmp_path}/images/train/"
        "z.png; put them there, or skip them with missing='skip'"
    )
