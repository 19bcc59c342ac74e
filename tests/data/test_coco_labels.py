import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stillhouse.build.data import make_facts, open_sources
from stillhouse.data.catalogue import open_source
from stillhouse.data.multilabel.coco import read_coco
from stillhouse.data.source import targets_of
from stillhouse.errors import UserError
from stillhouse.recipes.schema import Data

Json = dict[str, Any]
NAMES = {3: "zebra", 7: "apple", 90: "teddy bear"}  # ids of COCO have gaps, and are in no order
CLASSES = ("apple", "teddy bear", "zebra")
# image id -> (category, crowd) of its objects, and the image's file under its name
TRAIN = {
    9: [(3, 0), (7, 0), (3, 0)],
    25: [],
    11: [(90, 1)],
    30: [(7, 0), (90, 0), (3, 0)],
}
VAL = {5: [(90, 0)], 4: [(3, 1), (7, 0)]}
POLYGON = [[1.5, 2.25, -3.0, 4e-1, 5.0, 6.5], [7, 8, 9, 10, 11, 12]]
RLE = {"counts": [272, 2, 4], "size": [5, 7]}


def said(make: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        make()
    return str(error.value)


def pixels_of(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def name_of(part: str, year: int, number: int) -> str:
    return f"COCO_{part}{year}_{number:012d}.jpg" if year == 2014 else f"{number:012d}.jpg"


def annotated(images: dict[int, list[tuple[int, int]]], part: str, year: int) -> Json:
    """The content of a file of instances, in the fields that COCO's have."""
    things = [(image, *thing) for image, objects in images.items() for thing in objects]
    return {
        "info": {"description": "COCO", "year": year},
        "licenses": [{"id": 1, "name": "a licence", "url": "there"}],
        "images": [
            {"license": 1, "file_name": name_of(part, year, n), "height": 5, "width": 7, "id": n}
            for n in images
        ],
        "annotations": [
            {
                "segmentation": RLE if crowd else POLYGON,
                "area": 12.5,
                "iscrowd": crowd,
                "image_id": image,
                "bbox": [1.0, 2.5, 3.0, 4.0],
                "category_id": kind,
                "id": 1000 + i,
            }
            for i, (image, kind, crowd) in enumerate(things)
        ],
        "categories": [
            {"supercategory": "thing", "id": number, "name": name} for number, name in NAMES.items()
        ],
    }


def write(root: Path, year: int = 2014, below: str = "") -> Path:
    (root / "annotations").mkdir(exist_ok=True)
    for part, images in (("train", TRAIN), ("val", VAL)):
        content = json.dumps(annotated(images, part, year))
        (root / "annotations" / f"instances_{part}{year}.json").write_text(content)
        place = root / below / f"{part}{year}"
        place.mkdir(parents=True)
        for number in images:
            Image.fromarray(pixels_of(number)).save(place / name_of(part, year, number))
    return root


def file_of(root: Path, part: str = "train") -> Path:
    return root / "annotations" / f"instances_{part}2014.json"


def change(root: Path, edit: Callable[[Json], object], part: str = "train") -> Path:
    """The file of instances with something done to it."""
    file = file_of(root, part)
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))
    return file


def labels(root: Path, split: str = "train", **options: Any) -> dict[int, list[str]]:
    data = read_coco(root, split, **options)
    rows = data.targets.tolist()
    return {
        int(Path(path).stem.split("_")[-1]): [
            c for c, x in zip(data.classes, row, strict=True) if x
        ]
        for path, row in zip(data.paths, rows, strict=True)
    }


# ---------------------------------------------------------------------------------- what is there


@pytest.mark.parametrize("year", [2014, 2017])
@pytest.mark.parametrize("below", ["", "images"])
def test_images_have_the_categories_of_their_objects(year: int, below: str, tmp_path: Path) -> None:
    data = read_coco(write(tmp_path, year, below), "train", year=year, unlabelled="keep")
    assert data.classes == CLASSES
    assert data.paths == tuple(name_of("train", year, n) for n in (9, 11, 25, 30))
    assert data.targets.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1]]
    assert data.name == "coco/labels/train" and data.notes == ()
    for index, number in enumerate((9, 11, 25, 30)):
        with Image.open(
            tmp_path / below / f"train{year}" / name_of("train", year, number)
        ) as image:
            wanted = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
        assert torch.equal(data[index].image, wanted)


def test_test_is_val_and_of_the_same_classes(tmp_path: Path) -> None:
    write(tmp_path)
    train, test = (read_coco(tmp_path, split) for split in ("train", "test"))
    assert labels(tmp_path, "test") == {4: ["apple", "zebra"], 5: ["teddy bear"]}
    assert train.classes == test.classes
    assert train.fingerprint != test.fingerprint
    assert said(lambda: read_coco(tmp_path, "val")).startswith(
        "`split` must be 'train' or 'test', got 'val'"
    )


def test_images_without_a_label_are_left_out_unless_told_otherwise(tmp_path: Path) -> None:
    """As the papers count them."""
    data = read_coco(write(tmp_path), "train")
    assert len(data) == 3
    (note,) = data.notes
    assert note == (
        "coco/labels/train: 1 of 4 images have no labels and are skipped; the first is "
        f"{tmp_path}/train2014/COCO_train2014_000000000025.jpg"
    )


def test_crowds_count_unless_told_otherwise(tmp_path: Path) -> None:
    write(tmp_path)
    assert labels(tmp_path)[11] == ["teddy bear"]
    assert labels(tmp_path, crowd=False, unlabelled="keep")[11] == []
    assert labels(tmp_path, "test", crowd=False)[4] == ["apple"]
    assert labels(tmp_path, crowd=False).keys() == {9, 30}
    change(tmp_path, lambda content: [a.pop("iscrowd") for a in content["annotations"]])
    assert labels(tmp_path, crowd=False).keys() == {9, 11, 30}  # none is marked as one


def test_what_the_reader_does_not_need_may_be_anything(tmp_path: Path) -> None:
    write(tmp_path)
    wanted = labels(tmp_path)

    def strip(content: Json) -> None:
        for key in ("info", "licenses"):
            del content[key]
        for thing in content["annotations"]:
            thing.pop("segmentation"), thing.pop("bbox"), thing.pop("area")
        content["annotations"][0]["note"] = 'a "segmentation": [[1, "x"]] {of text}'
        content["annotations"][1]["segmentation"] = []
        content["annotations"][2]["old segmentation"] = [[1, 2]]

    change(tmp_path, strip)
    assert labels(tmp_path) == wanted


@pytest.mark.parametrize("indent", [None, 0, 2])
def test_outlines_are_skipped_however_they_are_written(indent: int | None, tmp_path: Path) -> None:
    """Last in its object, first in it, empty, nested, spread over lines."""
    write(tmp_path)
    wanted = labels(tmp_path)
    content = json.loads(file_of(tmp_path).read_text())
    outlines = [[], [[]], POLYGON, RLE, [[1]], [[-1.5e-07, 2e3]]]
    for i, thing in enumerate(content["annotations"]):
        outline = outlines[i % len(outlines)]
        thing.pop("segmentation")
        if i % 2:
            thing["segmentation"] = outline
        else:
            content["annotations"][i] = {"segmentation": outline, **thing}
    file_of(tmp_path).write_text(json.dumps(content, indent=indent))
    assert labels(tmp_path) == wanted


def test_the_catalogue_opens_it_with_its_options(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, 2017)
    assert len(open_source("coco/labels", tmp_path, "train")) == 3
    data = open_source("coco/labels", tmp_path, "train", year=2017, unlabelled="keep", crowd=False)
    assert len(data) == 4 and not data[1].target.any()
    message = said(lambda: open_source("coco/labels", tmp_path, "train", yaer=2017))
    assert message == "data.train: coco/labels has no option 'yaer'"


# -------------------------------------------------------------------------------------- policies


def test_missing_images(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "train2014" / name_of("train", 2014, 11)).unlink()
    assert said(lambda: read_coco(tmp_path, "train")) == (
        f"coco/labels/train: 1 of 4 images do not exist, the first is {tmp_path}/train2014/"
        "COCO_train2014_000000000011.jpg; put them there, or skip them with missing='skip'"
    )
    assert labels(tmp_path, missing="skip").keys() == {9, 30}


def test_categories_that_are_not_listed(tmp_path: Path) -> None:
    write(tmp_path)
    file = change(tmp_path, lambda content: content["categories"].pop(0))
    message = said(lambda: read_coco(tmp_path, "train"))
    assert message == (
        "coco/labels/train: 3 labels are not among the 2 classes, the first is 'category 3' of "
        f"{tmp_path}/train2014/COCO_train2014_000000000009.jpg; add their categories "
        f"to {file}, or skip them with unknown='skip'"
    )
    assert labels(tmp_path, unknown="skip") == {
        9: ["apple"], 11: ["teddy bear"], 30: ["apple", "teddy bear"]
    }  # fmt: skip


# -------------------------------------------------------------------------------------- mistakes


def test_places_that_are_none(tmp_path: Path) -> None:
    assert said(lambda: read_coco(tmp_path / "no", "train")) == (
        f"coco/labels: {tmp_path}/no does not exist; set data.path to the folder of the data set"
    )
    message = f"{file_of(tmp_path)} does not exist; put the annotations of that year there"
    assert said(lambda: read_coco(tmp_path, "train")) == message
    write(tmp_path)
    file_of(tmp_path).unlink()
    assert said(lambda: read_coco(tmp_path, "train")).startswith(f"{message}; did you mean ")


def test_another_year_is_pointed_to(tmp_path: Path) -> None:
    write(tmp_path, 2017)
    assert said(lambda: read_coco(tmp_path, "train")) == (
        f"{file_of(tmp_path)} does not exist, but instances_train2017.json does; set year=2017"
    )
    assert said(lambda: read_coco(tmp_path, "train", year=2015)).startswith(
        "`year` must be 2014 or 2017, got 2015; did you mean "
    )


def test_images_that_are_nowhere(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "train2014").rename(tmp_path / "elsewhere")
    assert said(lambda: read_coco(tmp_path, "train")) == (
        f"coco/labels: neither {tmp_path}/train2014 nor {tmp_path}/images/train2014 exists; put "
        "the images there"
    )


@pytest.mark.parametrize("cut", [0, 1, 200, -1])
def test_a_file_that_is_cut_short(cut: int, tmp_path: Path) -> None:
    file = file_of(write(tmp_path))
    file.write_bytes(file.read_bytes()[:cut])
    message = said(lambda: read_coco(tmp_path, "train"))
    assert message.startswith(f"{file} is damaged or truncated (")
    assert message.endswith("download the annotations again") and "\n" not in message


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_a_file_without_a_list(key: str, tmp_path: Path) -> None:
    write(tmp_path)
    file = change(tmp_path, lambda content: content.pop(key))
    wanted = f"{file} has no list of {key}; use the instances file"
    assert said(lambda: read_coco(tmp_path, "train")) == wanted
    change(tmp_path, lambda content: content.update({key: {"1": 2}}))
    assert said(lambda: read_coco(tmp_path, "train")) == wanted
    file.write_text("[1, 2]")
    assert said(lambda: read_coco(tmp_path, "train")).endswith("use the instances file")


@pytest.mark.parametrize(
    "table, key, value, words",
    [
        ("images", "id", None, "id of images[1] must be int, got None"),
        ("images", "id", "9", "id of images[1] must be int, got '9'"),
        ("images", "file_name", 3, "file_name of images[1] must be str, got 3"),
        ("annotations", "image_id", 9.0, "image_id of annotations[1] must be int, got 9.0"),
        ("annotations", "category_id", True, "category_id of annotations[1] must be int, got True"),
        ("categories", "id", None, "id of categories[1] must be int, got None"),
        ("categories", "name", None, "name of categories[1] must be str, got None"),
    ],
)
def test_values_of_another_kind(
    table: str, key: str, value: object, words: str, tmp_path: Path
) -> None:
    write(tmp_path)
    file = change(tmp_path, lambda content: content[table][1].update({key: value}))
    assert said(lambda: read_coco(tmp_path, "train")).startswith(f"{file}: {words}")
    change(tmp_path, lambda content: content[table][1].pop(key))
    assert "got None" in said(lambda: read_coco(tmp_path, "train"))


def test_rows_that_are_none(tmp_path: Path) -> None:
    write(tmp_path)
    change(tmp_path, lambda content: content["annotations"].append(7))
    assert "of annotations[7] must be int" in said(lambda: read_coco(tmp_path, "train"))


def test_an_annotation_of_an_image_that_is_not_listed(tmp_path: Path) -> None:
    write(tmp_path)
    file = change(tmp_path, lambda content: content["annotations"][2].update(image_id=77))
    assert said(lambda: read_coco(tmp_path, "train")) == (
        f"{file}: annotations[2] belongs to image 77, which is not among the 4 images; download "
        "the annotations again"
    )


@pytest.mark.parametrize(
    "table, key, value",
    [
        ("images", "id", 9),
        ("images", "file_name", name_of("train", 2014, 9)),
        ("categories", "id", 3),
        ("categories", "name", "zebra"),
    ],
)
def test_what_is_there_twice(table: str, key: str, value: object, tmp_path: Path) -> None:
    write(tmp_path)
    file = change(tmp_path, lambda content: content[table][2].update({key: value}))
    assert said(lambda: read_coco(tmp_path, "train")) == (
        f"{file}: {table}[0] and {table}[2] are both {value!r}; download the annotations again"
    )


def test_switches_are_true_or_false(tmp_path: Path) -> None:
    assert said(lambda: read_coco(write(tmp_path), "train", crowd="no")) == (  # type: ignore[arg-type]
        "`crowd` must be true or false, got 'no'"
    )


def test_a_recipe_holds_val_out_of_train(tmp_path: Path) -> None:
    data = Data("coco/labels", write(tmp_path), holdout=1)
    sources = open_sources(data)
    assert [len(s) for s in (sources.train, sources.val, sources.test)] == [2, 1, 2]
    assert sources.classes == CLASSES
    assert make_facts(data, sources).validation.shape == (1, 3)
    assert targets_of(sources.train).shape == (2, 3)
