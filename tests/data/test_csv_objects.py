from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stillhouse.data.catalogue import open_source
from stillhouse.data.objects.source import ObjectSource
from stillhouse.data.objects.table import read_table
from stillhouse.errors import UserError

TRAIN = """path,label,x1,y1,x2,y2
b/2.png,dog,1,2,5,6.5
a.png,cat,0,0,9,7
b/2.png,dog,2.25,1,8,7
c.png,,,,,
"""
VAL = "path,label,x1,y1,x2,y2\nc.png,cat,1,1,4,4\n"
ROWS = {
    "b/2.png": [("dog", 1, 2, 5, 6.5), ("dog", 2.25, 1, 8, 7)],
    "a.png": [("cat", 0, 0, 9, 7)],
    "c.png": [],
}


def said(make: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        make()
    return str(error.value)


def pixels_of(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (7, 9, 3), dtype=np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "b").mkdir()
    for number, path in enumerate(ROWS):
        Image.fromarray(pixels_of(number)).save(tmp_path / path)
    (tmp_path / "train.csv").write_text(TRAIN)
    (tmp_path / "val.csv").write_text(VAL)
    return tmp_path


def rows_of(source: ObjectSource) -> dict[str, list[tuple[Any, ...]]]:
    """Class and box of the objects of each image."""
    found = {}
    for index, path in enumerate(source.paths):
        own = source.targets.rows(slice(index, index + 1))
        pairs = zip(own.labels.tolist(), own.boxes.tolist(), strict=True)
        found[path] = [(source.classes[label], *box) for label, box in pairs]
    return found


# ---------------------------------------------------------------------------------- what is there


def test_rows_are_objects_of_their_images(root: Path) -> None:
    source = read_table(root, "train")
    assert source.classes == ("cat", "dog")
    assert list(rows_of(source)) == list(ROWS) and rows_of(source) == ROWS
    assert (source.name, source.notes) == (f"{root.name}/train", ())
    assert source.shapes.tolist() == [[7, 9]] * 3
    for index in range(3):
        image = torch.from_numpy(pixels_of(index)).permute(2, 0, 1)
        assert torch.equal(source[index].image, image)
    val = open_source("csv/objects", root, "val")
    assert isinstance(val, ObjectSource) and val.classes == source.classes
    assert rows_of(val) == {"c.png": [("cat", 1, 1, 4, 4)]}


@pytest.mark.parametrize(
    "header",
    [
        "path,class,xmin,ymin,xmax,ymax",
        "filename, label , xmin,ymin,x2,y2",
        "Path,Label,X1,Y1,X2,Y2",
        "\ufeffpath,label,x1,y1,x2,y2",
    ],
)
def test_columns_have_several_names(header: str, root: Path) -> None:
    text = TRAIN.replace("path,label,x1,y1,x2,y2", header)
    (root / "train.csv").write_text(text, encoding="utf-8")
    assert rows_of(read_table(root, "train")) == ROWS


def test_columns_may_be_in_any_order_beside_others(root: Path) -> None:
    lines = [line.split(",") for line in TRAIN.splitlines()]
    text = "\r\n".join(
        ",".join([line[5], "width" if not i else "9", *line[1:5], f'"{line[0]}"'])
        for i, line in enumerate(lines)
    )
    (root / "train.csv").write_text(text.replace("b/2", ".\\b\\2"), newline="")
    assert rows_of(read_table(root, "train")) == ROWS


def test_classes_can_be_listed(root: Path) -> None:
    (root / "classes.txt").write_text("dog\nbird\ncat\n")
    source = read_table(root, "train")
    assert source.classes == ("dog", "bird", "cat") and rows_of(source) == ROWS
    named = read_table(root, "train", classes=["cat", "dog", 7])
    assert named.classes == ("cat", "dog", "7") and rows_of(named) == ROWS


# --------------------------------------------------------------------------------------- mistakes


def test_labels_that_train_does_not_have(root: Path) -> None:
    (root / "val.csv").write_text(VAL.replace("cat", "cta"))
    assert said(lambda: read_table(root, "val")) == (
        f"{root.name}/val: 1 of 1 objects are of none of the 2 classes, the first is 'cta' in "
        f"{root}/val.csv, line 2; correct them, or list all classes in {root}/classes.txt, or skip "
        "them with unknown='skip'"
    )
    source = read_table(root, "val", unknown="skip")
    assert rows_of(source) == {"c.png": []} and "and are skipped" in source.notes[0]


NUMBERS = "x1, y1, x2, y2 must be numbers, got"
REMEDY = "correct them, or leave label and box empty for an image without objects"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("a.png,cat,1,2,three,4", f"{NUMBERS} '1, 2, three, 4'; {REMEDY}"),
        ("a.png,cat,1,2,,4", f"{NUMBERS} '1, 2, , 4'; {REMEDY}"),
        ("a.png,cat,,,,", f"{NUMBERS} ', , , '; {REMEDY}"),
        ("a.png,,1,2,3,4", "a box has no label; add it, or leave the box empty, too"),
        (",cat,1,2,3,4", "the column 'path' is empty; fill it in"),
        (
            "a.png,cat,1,2,3",
            "5 values for 6 columns; put values that contain a comma in quotes",
        ),
        (
            "a.png,cat,1,2,nan,4",
            "the numbers of the box must be finite, got [1.0, 2.0, nan, 4.0]; correct them",
        ),
        (
            "a.png,cat,1,2,inf,4",
            "the numbers of the box must be finite, got [1.0, 2.0, inf, 4.0]; correct them",
        ),
    ],
)
def test_rows_that_cannot_be(row: str, words: str, root: Path) -> None:
    (root / "train.csv").write_text(f"{TRAIN}\n{row}\n")
    assert said(lambda: read_table(root, "train")) == f"{root}/train.csv, line 7: {words}"


def test_sides_in_the_place_of_corners_are_noticed(root: Path) -> None:
    """Where x2 is a width: one of the boxes is reversed."""
    (root / "train.csv").write_text(f"{TRAIN}a.png,cat,5,3,2,2\n")
    assert said(lambda: read_table(root, "train")).startswith(
        f"{root.name}/train: 1 of 4 boxes have x2 < x1 or y2 < y1, the first is {root}/train.csv, "
        "line 6; "
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", " has no column path or filename; it has none"),
        ("pth,label,x1,y1,x2,y2\n", " has no column path or filename; did you mean 'pth'?"),
        ("path,label,x1,y1,x2\n", " has no column y2 or ymax; it has path, label, x1, y1, x2"),
        ("path,label,x1,y1,x1,y2\n", " has two columns 'x1'; rename one of them"),
        ("path,label,x1,y1,x2,y2\n", " lists no images; write one object per line under"),
        ("path,label,x1,y1,x2,y2\nc.png,,,,,\n", " has no objects; list the classes in "),
        ('path,label,x1,y1,x2,y2\n"a', ", line 2: unexpected end of data; correct that row"),
    ],
)
def test_tables_that_cannot_be(text: str, words: str, root: Path) -> None:
    (root / "train.csv").write_text(text)
    assert said(lambda: read_table(root, "train")).startswith(f"{root}/train.csv{words}")


def test_files_that_are_missing(root: Path) -> None:
    (root / "train.csv").unlink()
    assert said(lambda: read_table(root, "val")) == (
        f"{root}/train.csv, which defines the classes, does not exist; list them in "
        f"{root}/classes.txt"
    )
    assert f"{root}/train.csv does not exist; write one object" in said(
        lambda: read_table(root, "train")
    )
    (root / "classes.txt").write_text("cat\ndog\n")
    (root / "c.png").unlink()
    assert f"1 of 1 images do not exist, the first is {root}/c.png" in said(
        lambda: read_table(root, "val")
    )
