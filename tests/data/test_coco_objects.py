import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stillhouse.data.catalogue import open_source
from stillhouse.data.objects.coco import read_coco
from stillhouse.data.objects.source import ObjectSource
from stillhouse.data.problems import MissingSplit
from stillhouse.errors import UserError

Json = dict[str, Any]
NAMES = {90: "teddy bear", 3: "zebra", 7: "apple"}  # ids with gaps, not in their order
CLASSES = ("zebra", "apple", "teddy bear")
# image id -> (category, crowd, area, x, y, width, height) of its objects
TRAIN: dict[int, list[tuple[Any, ...]]] = {
    9: [(3, 0, 5.5, 1, 2.5, 3, 1.25), (7, 1, 9.75, 0, 0, 7, 5)],
    25: [],
    11: [(90, 0, 2, 2.5, 1.5, 4.5, 2)],
}
VAL: dict[int, list[tuple[Any, ...]]] = {5: [(90, 0, 4, 1, 1, 2, 2)]}


def said(make: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        make()
    return str(error.value)


def pixels_of(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def annotated(images: dict[int, list[tuple[Any, ...]]]) -> Json:
    """The content of a file of instances, in the fields that COCO's have."""
    things = [(image, *thing) for image, objects in images.items() for thing in objects]
    return {
        "info": {"description": "COCO"},
        "images": [
            {"license": 1, "file_name": f"{n:012d}.png", "height": 5, "width": 7, "id": n}
            for n in images
        ],
        "annotations": [
            {
                "segmentation": {"counts": [35], "size": [5, 7]} if crowd else [[1, 2, 3, 4, 5, 6]],
                "area": area,
                "iscrowd": crowd,
                "image_id": image,
                "bbox": box,
                "category_id": kind,
                "id": 1000 + i,
            }
            for i, (image, kind, crowd, area, *box) in enumerate(things)
        ],
        "categories": [{"supercategory": "thing", "id": i, "name": n} for i, n in NAMES.items()],
    }


def put(file: Path, folder: Path, images: dict[int, list[tuple[Any, ...]]]) -> None:
    """A file of instances, and its images in a folder."""
    for place in (file.parent, folder):
        place.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(annotated(images)))
    for number in images:
        Image.fromarray(pixels_of(number)).save(folder / f"{number:012d}.png")


def write(root: Path, year: int = 2017, below: str = "") -> Path:
    for part, images in (("train", TRAIN), ("val", VAL)):
        place = root / below / f"{part}{year}"
        put(root / "annotations" / f"instances_{part}{year}.json", place, images)
    return root


def file_of(root: Path) -> Path:
    return root / "annotations" / "instances_train2017.json"


def change(root: Path, edit: Callable[[Json], object]) -> Path:
    """The file of instances with something done to it."""
    content = json.loads(file_of(root).read_text())
    edit(content)
    file_of(root).write_text(json.dumps(content))
    return file_of(root)


def rows_of(source: ObjectSource) -> dict[int, list[tuple[Any, ...]]]:
    """The objects of each image id as TRAIN has them, with corners instead of sides."""
    found: dict[int, list[tuple[Any, ...]]] = {}
    for index, path in enumerate(source.paths):
        own = source.targets.rows(slice(index, index + 1))
        assert own.crowd is not None and own.area is not None
        parts = (own.labels, own.crowd, own.area, own.boxes)
        found[int(Path(path).stem)] = [
            (source.classes[label], crowd, area, *box)
            for label, crowd, area, box in zip(*(part.tolist() for part in parts), strict=True)
        ]
    return found


def wanted(images: dict[int, list[tuple[Any, ...]]]) -> dict[int, list[tuple[Any, ...]]]:
    return {
        number: [
            (NAMES[kind], bool(crowd), area, x, y, x + width, y + height)
            for kind, crowd, area, x, y, width, height in objects
        ]
        for number, objects in images.items()
    }


# ---------------------------------------------------------------------------------- what is there


@pytest.mark.parametrize("year", [2014, 2017])
@pytest.mark.parametrize("below", ["", "images"])
def test_images_have_their_objects(year: int, below: str, tmp_path: Path) -> None:
    source = read_coco(write(tmp_path, year, below), "train", year=year)
    assert source.classes == CLASSES  # in the order of their ids
    assert [int(Path(path).stem) for path in source.paths] == [9, 11, 25]
    assert rows_of(source) == wanted(TRAIN)
    assert (source.name, source.notes) == ("coco/objects/train", ())
    assert source.shapes.tolist() == [[5, 7]] * 3
    for index, number in enumerate((9, 11, 25)):
        image = torch.from_numpy(pixels_of(number)).permute(2, 0, 1)
        assert torch.equal(source[index].image, image)


def test_test_is_val_and_of_the_same_classes(tmp_path: Path) -> None:
    write(tmp_path)
    train, test = (open_source("coco/objects", tmp_path, split) for split in ("train", "test"))
    assert isinstance(test, ObjectSource) and rows_of(test) == wanted(VAL)
    assert train.classes == test.classes and train.fingerprint != test.fingerprint
    assert said(lambda: read_coco(tmp_path, "val")) == (
        "coco/objects: COCO has no val split, as its val images are `test`; hold out samples of "
        "train with data.holdout=COUNT"
    )


def test_what_is_not_needed_may_be_absent(tmp_path: Path) -> None:
    """An area is that of the box, nothing is a crowd, and the size is that of the image."""
    write(tmp_path)

    def strip(content: Json) -> None:
        del content["info"]
        for thing in content["annotations"]:
            for key in ("segmentation", "area", "iscrowd", "id"):
                del thing[key]
        content["annotations"][1]["area"] = None
        for row in content["images"]:
            del row["height"], row["width"]

    change(tmp_path, strip)
    source = read_coco(tmp_path, "train")
    boxes = {n: [row[3:] for row in rows] for n, rows in wanted(TRAIN).items()}
    found = rows_of(source)
    assert {n: [row[3:] for row in rows] for n, rows in found.items()} == boxes
    assert not any(row[1] for rows in found.values() for row in rows)
    assert [row[2] for row in found[9]] == [3 * 1.25, 35]
    assert source.shapes.tolist() == [[5, 7]] * 3


def test_images_have_the_sizes_that_are_annotated(tmp_path: Path) -> None:
    """Images are listed in another order than that of their names."""
    write(tmp_path)
    sizes = {9: (5, 7), 25: (6, 8), 11: (9, 10)}

    def resize(content: Json) -> None:
        for row in content["images"]:
            row["height"], row["width"] = sizes[row["id"]]

    change(tmp_path, resize)
    source = read_coco(tmp_path, "train")
    found = zip(source.paths, source.shapes.tolist(), strict=True)
    assert {int(Path(path).stem): tuple(shape) for path, shape in found} == sizes


@pytest.mark.parametrize("indent", [None, 2])
def test_polygons_change_nothing_however_they_are_written(
    indent: int | None, tmp_path: Path
) -> None:
    write(tmp_path)
    content = json.loads(file_of(tmp_path).read_text())
    outlines = [[], [[]], [[1.5, -2e-7], [3, 4]]]
    for thing, outline in zip(content["annotations"], outlines, strict=True):
        thing["segmentation"] = outline
    file_of(tmp_path).write_text(json.dumps(content, indent=indent))
    assert rows_of(read_coco(tmp_path, "train")) == wanted(TRAIN)


def test_names_of_files_may_have_folders(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "train2017" / "a").mkdir()
    name = f"{9:012d}.png"
    (tmp_path / "train2017" / name).rename(tmp_path / "train2017" / "a" / name)
    change(tmp_path, lambda content: content["images"][0].update(file_name=f".\\a\\{name}"))
    source = read_coco(tmp_path, "train")
    assert source.paths[-1] == f"a/{name}"  # sorted
    assert rows_of(source) == wanted(TRAIN)


# ---------------------------------------------------------------------------------------- exports


def test_an_export_beside_its_images(tmp_path: Path) -> None:
    for folder, images in (("train", TRAIN), ("valid", VAL)):
        put(tmp_path / folder / "_annotations.coco.json", tmp_path / folder, images)
    assert rows_of(read_coco(tmp_path, "train")) == wanted(TRAIN)
    assert rows_of(read_coco(tmp_path, "val")) == wanted(VAL)
    with pytest.raises(MissingSplit, match=r"has no annotations of test; put them there$"):
        read_coco(tmp_path, "test")
    put(tmp_path / "test" / "_annotations.coco.json", tmp_path / "test", VAL)
    assert rows_of(read_coco(tmp_path, "test")) == wanted(VAL)


@pytest.mark.parametrize("folder", ["images/train", "train", "images"])
def test_an_export_with_annotations_of_their_own(folder: str, tmp_path: Path) -> None:
    put(tmp_path / "annotations" / "instances_train.json", tmp_path / folder, TRAIN)
    assert rows_of(read_coco(tmp_path, "train")) == wanted(TRAIN)
    assert said(lambda: read_coco(tmp_path, "val")) == (
        f"coco/objects: {tmp_path} has no annotations of val; put them there, or hold out samples "
        "of train with data.holdout=COUNT"
    )


def test_files_can_be_named(tmp_path: Path) -> None:
    put(tmp_path / "json" / "train-1.json", tmp_path / "photos" / "train", TRAIN)
    put(tmp_path / "json" / "val-1.json", tmp_path / "json", VAL)
    named = {"annotations": "json/{split}-1.json", "images": "photos/{split}"}
    assert rows_of(read_coco(tmp_path, "train", **named)) == wanted(TRAIN)
    # without a folder, the images are beside their annotations
    source = read_coco(tmp_path, "val", annotations="json/{split}-1.json")
    assert rows_of(source) == wanted(VAL)
    assert said(lambda: read_coco(tmp_path, "val", **named)) == (
        f"coco/objects: {tmp_path}/photos/val does not exist; put the images there"
    )
    assert said(lambda: read_coco(tmp_path, "test", **named)).startswith(
        f"coco/objects: {tmp_path}/photos/test does not exist"
    )


# --------------------------------------------------------------------------------------- mistakes


def test_places_that_are_none(tmp_path: Path) -> None:
    assert said(lambda: read_coco(tmp_path / "no", "train")) == (
        f"coco/objects: {tmp_path}/no does not exist; set data.path to the folder of the data set"
    )
    assert said(lambda: read_coco(tmp_path, "train")) == (
        f"{file_of(tmp_path)} does not exist; put the annotations there, or name a file below "
        f"{tmp_path} with annotations=FILE"
    )
    write(tmp_path, 2014)
    assert said(lambda: read_coco(tmp_path, "train")) == (
        f"{file_of(tmp_path)} does not exist, but instances_train2014.json does; set year=2014"
    )
    (tmp_path / "train2014").rename(tmp_path / "elsewhere")
    assert said(lambda: read_coco(tmp_path, "train", year=2014)) == (
        f"coco/objects: neither {tmp_path}/train2014 nor {tmp_path}/images/train2014 exists; put "
        "the images there"
    )
    assert said(lambda: read_coco(tmp_path, "trian")).startswith("`split` must be 'train', 'val'")
    assert said(lambda: read_coco(tmp_path, "train", year=2015)).startswith("`year` must be 2017")


@pytest.mark.parametrize("cut", [0, 1, 200, -1])
def test_a_file_that_is_cut_short(cut: int, tmp_path: Path) -> None:
    file = file_of(write(tmp_path))
    file.write_bytes(file.read_bytes()[:cut])
    message = said(lambda: read_coco(tmp_path, "train"))
    assert message.startswith(f"{file} is damaged or truncated (")
    assert message.endswith("; download or export the annotations again") and "\n" not in message


FOUR = "must be 4 numbers x, y, width, height, got"


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("bbox", [1, 2, 3], f"bbox of annotations[1] {FOUR} [1, 2, 3]"),
        ("bbox", [1, 2, "3", 4], f"bbox of annotations[1] {FOUR} [1, 2, '3', 4]"),
        ("bbox", [1, 2, None, 4], f"bbox of annotations[1] {FOUR} [1, 2, None, 4]"),
        ("bbox", [[1, 2, 3, 4]], f"bbox of annotations[1] {FOUR} [[1, 2, 3, 4]]"),
        ("bbox", 5, f"bbox of annotations[1] {FOUR} 5"),
        ("bbox", {"x": 1}, f"bbox of annotations[1] {FOUR} {{'x': 1}}"),
        ("bbox", None, f"bbox of annotations[1] {FOUR} None"),
        ("area", "5", "area of annotations[1] must be a number, got '5'"),
        ("area", float("inf"), "area of annotations[1] must be a number, got inf"),
        ("area", [5], "area of annotations[1] must be a number, got [5]"),
        ("image_id", "9", "image_id of annotations[1] must be int, got '9'"),
        ("image_id", 77, "annotations[1] belongs to image 77, which is not among the 3 images"),
        ("category_id", 3.0, "category_id of annotations[1] must be int, got 3.0"),
    ],
)
def test_values_of_annotations_that_cannot_be(
    key: str, value: object, words: str, tmp_path: Path
) -> None:
    write(tmp_path)
    file = change(tmp_path, lambda content: content["annotations"][1].update({key: value}))
    assert said(lambda: read_coco(tmp_path, "train")) == (
        f"{file}: {words}; download or export the annotations again"
    )


def test_boxes_that_all_lack_a_number(tmp_path: Path) -> None:
    write(tmp_path)

    def cut(content: Json) -> None:
        for thing in content["annotations"]:
            thing["bbox"] = thing["bbox"][:3]

    change(tmp_path, cut)
    assert "bbox of annotations[0] must be 4 numbers" in said(lambda: read_coco(tmp_path, "train"))


def test_a_file_without_objects(tmp_path: Path) -> None:
    write(tmp_path)
    change(tmp_path, lambda content: content.update(annotations=[]))
    source = read_coco(tmp_path, "train")
    assert rows_of(source) == {9: [], 11: [], 25: []}
    assert source[0].target.boxes.shape == (0, 4)  # type: ignore[union-attr]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e400"])
def test_boxes_that_are_not_finite(value: str, tmp_path: Path) -> None:
    file = file_of(write(tmp_path))
    file.write_text(file.read_text().replace("2.5, 3", f"{value}, 3"))
    number = float(value)
    assert said(lambda: read_coco(tmp_path, "train")) == (
        f"{file}: annotations[0]: the numbers of the box must be finite, got "
        f"[1.0, {number}, 4.0, {number}]; correct them"
    )


@pytest.mark.parametrize("size", [("5", 7), (5.0, 7), (-5, 7), (True, 7), (5, [7])])
def test_sizes_that_cannot_be(size: tuple[Any, Any], tmp_path: Path) -> None:
    write(tmp_path)
    height, width = size
    file = change(tmp_path, lambda c: c["images"][2].update(height=height, width=width))
    assert said(lambda: read_coco(tmp_path, "train")) == (
        f"{file}: height and width of images[2] must be whole numbers, got {height!r} and "
        f"{width!r}; download or export the annotations again"
    )


def test_a_size_that_is_not_that_of_the_image(tmp_path: Path) -> None:
    write(tmp_path)
    change(tmp_path, lambda content: content["images"][0].update(height=7, width=5))
    source = read_coco(tmp_path, "train", outside="keep")
    assert "has 5 x 7 pixels, but its boxes were annotated on 7 x 5" in said(lambda: source[0])


def test_categories_that_are_not_listed(tmp_path: Path) -> None:
    write(tmp_path)
    file = change(tmp_path, lambda content: content["categories"].pop(1))
    assert said(lambda: read_coco(tmp_path, "train")) == (
        "coco/objects/train: 1 of 3 objects are of none of the 2 classes, the first is category 3 "
        f"in {file}: annotations[0]; add their categories to {file}, or skip them with "
        "unknown='skip'"
    )
    source = read_coco(tmp_path, "train", unknown="skip")
    assert source.classes == ("apple", "teddy bear")
    assert rows_of(source)[9] == wanted(TRAIN)[9][1:]


def test_options_of_the_checks_reach_them(tmp_path: Path) -> None:
    write(tmp_path)
    source = open_source("coco/objects", tmp_path, "train", empty="skip")
    assert len(source) == 2
    with pytest.raises(UserError, match=r"^`empty` must be 'keep', 'skip' or 'fail', got 'drop'"):
        open_source("coco/objects", tmp_path, "train", empty="drop")
    change(tmp_path, lambda content: content["annotations"][0].update(bbox=[6, 4, -3, 0.5]))
    assert "have x2 < x1" in said(lambda: read_coco(tmp_path, "train"))
