"""The splits of data in one, two and three labelled parts, of every reader of own images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quick import quick
from stillhouse.build.data import Sources, open_sources
from stillhouse.build.splits import SplitSources
from stillhouse.data.embedded.digits import make_raw
from stillhouse.data.transforms import Resize
from stillhouse.errors import UserError
from stillhouse.recipes.schema import Data

COUNT = 10  # images of a class
CLASSES = ("cat", "dog")
RESIZE = (Resize(8, square=True),)


def save(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16 + seed % 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_classes(root: Path) -> Path:
    for number, name in enumerate(CLASSES):
        for i in range(COUNT):
            save(root / name / f"{name}{i}.png", COUNT * number + i)
    return root


def write_folder(root: Path, split: str) -> None:
    write_classes(root / split)


def listed(root: Path, split: str) -> list[tuple[str, str]]:
    """The paths and classes of images below the root."""
    write_classes(root / "images" / split)
    names = [(name, i) for name in CLASSES for i in range(COUNT)]
    return [(f"images/{split}/{name}/{name}{i}.png", name) for name, i in names]


def write_csv(root: Path, split: str) -> None:
    rows = [f"{path},{name}" for path, name in listed(root, split)]
    (root / f"{split}.csv").write_text("\n".join(["path,label", *rows]))


def write_csv_labels(root: Path, split: str) -> None:
    rows = [f"{path},{name}" for path, name in listed(root, split)]
    (root / f"{split}.csv").write_text("\n".join(["path,labels", *rows]))


def write_csv_objects(root: Path, split: str) -> None:
    rows = [f"{path},{name},1,1,9,9" for path, name in listed(root, split)]
    (root / f"{split}.csv").write_text("\n".join(["path,label,x1,y1,x2,y2", *rows]))


def write_yolo(root: Path, split: str) -> None:
    file = root / "data.yaml"
    known = file.read_text() if file.exists() else "names: [cat, dog]\n"
    file.write_text(f"{known}{split}: images/{split}\n")
    for path, name in listed(root, split):
        label = (root / path.replace("images", "labels", 1)).with_suffix(".txt")
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(f"{CLASSES.index(name)} 0.5 0.5 0.4 0.4\n")


def write_coco(root: Path, split: str) -> None:
    images, objects = [], []
    for i, (path, name) in enumerate(listed(root / "all", split)):
        (root / split).mkdir(exist_ok=True)
        shutil.move(root / "all" / path, root / split / f"{i}.png")
        with Image.open(root / split / f"{i}.png") as image:
            width, height = image.size
        images.append({"id": i, "file_name": f"{i}.png", "width": width, "height": height})
        one = {"id": i, "image_id": i, "category_id": 1 + CLASSES.index(name), "bbox": [1, 1, 8, 8]}
        objects.append({**one, "area": 64, "iscrowd": 0})
    kinds = [{"id": 1 + i, "name": name} for i, name in enumerate(CLASSES)]
    content = {"images": images, "annotations": objects, "categories": kinds}
    (root / split / "_annotations.coco.json").write_text(json.dumps(content))


def write_voc(root: Path, split: str) -> None:
    names = []
    for i, (path, name) in enumerate(listed(root / "all", split)):
        names.append(f"{split}{i}")
        for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        with Image.open(root / "all" / path) as image:
            image.save(root / "JPEGImages" / f"{split}{i}.jpg")
            size = f"<size><width>{image.width}</width><height>{image.height}</height></size>"
        box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
        thing = f"<object><name>{name}</name>{box}</object>"
        file = root / "Annotations" / f"{split}{i}.xml"
        file.write_text(f"<annotation>{size}{thing}</annotation>")
    (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names))


def write_masks(root: Path, split: str) -> None:
    (root / "classes.txt").write_text("cat\ndog\n")
    for i, (path, name) in enumerate(listed(root / "all", split)):
        (root / split / "images").mkdir(parents=True, exist_ok=True)
        (root / split / "masks").mkdir(exist_ok=True)
        shutil.move(root / "all" / path, root / split / "images" / f"{i}.png")
        with Image.open(root / split / "images" / f"{i}.png") as image:
            mask = np.zeros((image.height, image.width), np.uint8)
        mask[:8, :8] = CLASSES.index(name)
        Image.fromarray(mask).save(root / split / "masks" / f"{i}.png")


def write_instances(root: Path, split: str) -> None:
    write_masks(root, split)
    rows = ["mask,value,class"]
    for file in sorted((root / split / "masks").iterdir()):
        mask = np.array(Image.open(file))
        rows.append(f"{file.name},1,{CLASSES[int(mask.max())]}")
        mask[:] = 0
        mask[:8, :8] = 1
        Image.fromarray(mask).save(file)
    (root / split / "instances.csv").write_text("\n".join(rows))


READERS: dict[str, Callable[[Path, str], None]] = {
    "folder": write_folder,
    "folder/labels": write_folder,
    "csv": write_csv,
    "csv/labels": write_csv_labels,
    "csv/objects": write_csv_objects,
    "yolo/objects": write_yolo,
    "coco/objects": write_coco,
    "voc/objects": write_voc,
    "folder/semantic": write_masks,
    "folder/instances": write_instances,
}


def sizes(sources: Sources) -> dict[str, int]:
    return {name: len(source) for name, source in sources.by_name.items()}


def opened(root: Path, name: str, *splits: str, **options: object) -> Sources:
    for split in splits:
        READERS[name](root, split)
    return open_sources(Data(name, root, evaluation=RESIZE, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("amount", [4, 0.2])
def test_one_labelled_part_becomes_three(name: str, amount: int | float, tmp_path: Path) -> None:
    sources = opened(tmp_path, name, "train", holdout=amount)
    assert sizes(sources) == {"train": 12, "val": 4, "test": 4}
    assert sources.score_split == "test" and sources.measured is sources.test
    assert len({source.fingerprint for source in sources.by_name.values()}) == 3


@pytest.mark.parametrize("name", READERS)
def test_a_test_split_of_its_own_is_kept_whole(name: str, tmp_path: Path) -> None:
    sources = opened(tmp_path, name, "train", "test", holdout=4)
    assert sizes(sources) == {"train": 16, "val": 4, "test": 20}


@pytest.mark.parametrize("name", READERS)
def test_without_test_the_scores_are_of_validation(name: str, tmp_path: Path) -> None:
    sources = opened(tmp_path, name, "train", "val")
    assert sizes(sources) == {"train": 20, "val": 20}
    assert sources.score_split == "validation" and sources.measured is sources.val
    assert sources.notes == ()


@pytest.mark.parametrize("name", ["folder", "csv", "yolo/objects", "voc/objects"])
def test_a_val_split_that_holdout_replaces_is_named(name: str, tmp_path: Path) -> None:
    sources = opened(tmp_path, name, "train", "val", holdout=4)
    assert sizes(sources) == {"train": 16, "val": 4} and sources.score_split == "validation"
    (note,) = sources.notes
    assert note.endswith("val is not used, because data.holdout takes validation out of train")


@pytest.mark.parametrize("name", READERS)
def test_one_part_without_holdout_is_refused_with_the_key(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.holdout=") as caught:
        opened(tmp_path, name, "train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "file", "other"),
    [("folder", "valid", "val"), ("csv", "validation.csv", "val.csv"), ("folder", "Test", "test")],
)
def test_a_split_of_another_name_is_not_passed_over(
    name: str, file: str, other: str, tmp_path: Path
) -> None:
    READERS[name](tmp_path, "train")
    (tmp_path / file).mkdir()
    with pytest.raises(UserError) as caught:
        opened(tmp_path, name, holdout=4)
    assert str(caught.value) == f"{tmp_path / file} is not read; rename it to {other}"


def test_half_of_the_images_cannot_be_held_out_twice(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"hold out 0\.5 of 20 samples for each of val and test"):
        opened(tmp_path, "csv", "train", holdout=0.5)


@pytest.mark.parametrize("value", ["-1", "1.0", "1.5", "-0.1", "many"])
def test_wrong_values_of_holdout(value: str) -> None:
    with pytest.raises(UserError, match=r"holdout"):
        quick(f"data.holdout={value}")


def test_a_count_of_holdout_stays_a_count() -> None:
    assert repr(quick("data.holdout=5").data.holdout) == "5"
    assert repr(quick("data.holdout=0.5").data.holdout) == "0.5"


# ----------------------------------------------------------------------- class folders, no splits


def test_class_folders_alone_are_one_part(tmp_path: Path) -> None:
    write_classes(tmp_path)
    sources = opened(tmp_path, "folder", holdout=0.2)
    assert sizes(sources) == {"train": 12, "val": 4, "test": 4} and sources.classes == CLASSES
    with pytest.raises(UserError) as caught:
        opened(tmp_path, "folder")
    assert str(caught.value) == (
        f"{tmp_path} has neither val nor test; add val, or set data.holdout=0.2, which takes that "
        "share of the images for validation and as many for test"
    )


LAYOUTS = {
    "a class called train": (
        ["train/a.png", "bus/b.png", "car/c.png"],
        "{0}/train has no class folders, but is beside bus, car; if these are classes, move all "
        "class folders into {0}/train",
    ),
    "test alone": (
        ["test/cat/a.png"],
        "{0} has no folder train, but test; put the class folders of the training images into "
        "{0}/train",
    ),
    "test beside classes": (
        ["test/cat/a.png", "cat/b.png", "dog/c.png"],
        "{0} has no folder train, but cat, dog beside test, which are names of splits; put the "
        "class folders of the training images into {0}/train",
    ),
    "the splits one folder below": (
        ["photos/train/cat/a.png", "runs/b.png"],
        "{0} has no folder train, but {0}/photos has one; set data.path={0}/photos",
    ),
    "a typing error": (
        ["trian/cat/a.png"],
        "{0} has neither a folder train nor several classes, only trian; give the folder that "
        "contains train/ and val/, or one folder per class; did you mean 'trian'?",
    ),
    "images without folders": (
        ["a.png"],
        "{0} contains no folders; put the images of each class into a folder of their own",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_unclear_layouts_are_refused(layout: str, tmp_path: Path) -> None:
    files, message = LAYOUTS[layout]
    for number, file in enumerate(files):
        save(tmp_path / file, number)
    with pytest.raises(UserError) as caught:
        opened(tmp_path, "folder", holdout=1)
    assert str(caught.value) == message.format(tmp_path)


# ------------------------------------------------------------------------------- given in Python


def given(**splits: int) -> SplitSources:
    named = {"train": "train", "val": "val", "test": "test"}
    return {name: make_raw(named[name], count=count) for name, count in splits.items()}


def test_given_sources_are_held_out_alike() -> None:
    data = Data("digits/raw", mean=(0.25,), std=(0.25,), holdout=0.25)
    assert sizes(open_sources(data, given(train=100))) == {"train": 50, "val": 25, "test": 25}
    both = given(train=100, test=40)
    assert sizes(open_sources(data, both)) == {"train": 75, "val": 25, "test": 40}


def test_a_test_split_with_the_images_of_val_is_validation() -> None:
    splits = given(train=100, val=40)
    sources = open_sources(
        Data("digits/raw", mean=(0.25,), std=(0.25,)), {**splits, "test": splits["val"]}
    )
    assert sizes(sources) == {"train": 100, "val": 40}
    assert len(sources.notes) == 1 and sources.notes[0].endswith("has the images of val")
