import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from stillhouse.build.data import open_sources
from stillhouse.build.splits import find_split
from stillhouse.data.catalogue import open_source
from stillhouse.data.multilabel.table import read_table
from stillhouse.errors import UserError
from stillhouse.recipes.schema import Data

NAMES = ("b/1.png", "a/2.png", "3.png", "a/4.png")
CLASSES = ("cat", "dog", "emu")


def said(make: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        make()
    return str(error.value)


def tensor_of(seed: int) -> Tensor:
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return torch.from_numpy(pixels).permute(2, 0, 1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "pets"
    for seed, name in enumerate(NAMES):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tensor_of(seed).permute(1, 2, 0).numpy()).save(place / name)
    return place


def write(root: Path, rows: Sequence[Sequence[object]], split: str = "train") -> Path:
    with (root / f"{split}.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root / f"{split}.csv"


def listed(root: Path, *labels: str, split: str = "train") -> Path:
    """A table with a column of labels, in the order of the images."""
    rows = list(zip(NAMES, labels, strict=False))
    return write(root, [("path", "labels"), *rows], split)


def marked(
    root: Path, header: Sequence[str], *rows: Sequence[object], split: str = "train"
) -> Path:
    """A table with columns of 0 and 1, in the order of the images."""
    named = [(name, *row) for name, row in zip(NAMES, rows, strict=False)]
    return write(root, [("path", *header), *named], split)


def labels(root: Path, split: str = "train", **options: Any) -> list[list[str]]:
    data = read_table(root, split, **options)
    rows = data.targets.tolist()
    return [[c for c, mark in zip(data.classes, row, strict=True) if mark] for row in rows]


# --------------------------------------------------------------------------------------- the images


def test_rows_are_images_in_their_order(root: Path) -> None:
    listed(root, "dog;cat", "", "emu", " cat ; dog;emu;")
    data = read_table(root, "train")
    assert (data.name, data.classes, data.notes) == ("pets/train", CLASSES, ())
    assert data.paths == NAMES
    assert data.targets.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1], [1, 1, 1]]
    for index in range(4):
        assert torch.equal(data[index].image, tensor_of(index)) and data[index].key == index


def test_columns_of_0_and_1_say_the_same(root: Path) -> None:
    listed(root, "dog;cat", "", "emu", "cat;dog;emu")
    first = read_table(root, "train")
    marked(root, CLASSES, (1, 1, 0), (0, 0, 0), (0, 0, 1), (1, 1, 1))
    other = read_table(root, "train")
    assert other.classes == first.classes and torch.equal(other.targets, first.targets)
    assert other.fingerprint == first.fingerprint


def test_columns_keep_their_order(root: Path) -> None:
    marked(root, ("emu", "ape"), (1, 0), (0, 1))
    data = read_table(root, "train")
    assert data.classes == ("emu", "ape") and data.targets.tolist() == [[1, 0], [0, 1]]


def test_paths_are_written_in_several_ways(root: Path) -> None:
    write(root, [("path", "labels"), ("b\\1.png", "x"), ("./a/2.png", "x"), (root / "3.png", "y")])
    data = read_table(root, "train")
    assert data.paths == ("b/1.png", "a/2.png", f"{root}/3.png")
    assert torch.equal(data[2].image, tensor_of(2))


def test_columns_stand_in_any_order_among_others(root: Path) -> None:
    rows = [
        ("width", "labels", "path", "note"),
        (7, "dog", "a/2.png", "x, y"),
        (7, "", "3.png", ""),
    ]
    write(root, rows)
    data = read_table(root, "train")
    assert data.paths == ("a/2.png", "3.png") and data.targets.tolist() == [[1], [0]]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "with a mark"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["unix", "windows"])
def test_texts_are_utf_8(mark: bytes, end: str, root: Path) -> None:
    lines = ["path,labels", "3.png,kätzchen;犬", "", "a/2.png,犬", "", ""]
    (root / "train.csv").write_bytes(mark + end.join(lines).encode())
    assert read_table(root, "train").classes == ("kätzchen", "犬")
    assert labels(root) == [["kätzchen", "犬"], ["犬"]]
    (root / "train.csv").write_bytes("path,labels\n3.png,kätzchen\n".encode("latin1"))
    assert said(lambda: read_table(root, "train")).startswith(
        f"{root}/train.csv is not UTF-8 text ("
    )


@pytest.mark.parametrize("separator", ["|", ",", " ", "\t", "::"])
def test_labels_are_separated_by_something_else(separator: str, root: Path) -> None:
    listed(root, separator.join(["dog", "cat"]), "emu")
    assert labels(root, separator=separator) == [["cat", "dog"], ["emu"]]


def test_rows_of_one_image_are_taken_together(root: Path) -> None:
    """A line a label is how many tools write it."""
    rows = [("3.png", "dog"), ("b/1.png", "cat"), ("./3.png", "emu"), ("3.png", "dog")]
    write(root, [("path", "labels"), *rows])
    data = read_table(root, "train")
    assert data.paths == ("3.png", "b/1.png")
    assert labels(root) == [["dog", "emu"], ["cat"]]
    assert data.notes == ("pets/train: 2 rows repeat an image; the labels of its rows are merged",)


# -------------------------------------------------------------------------------------- the classes


def test_other_splits_have_the_classes_of_train(root: Path) -> None:
    listed(root, "dog;cat", "emu")
    listed(root, "emu", split="val")
    marked(root, ("emu", "dog", "cat"), (0, 0, 1), split="test")
    for split, wanted in (("val", ["emu"]), ("test", ["cat"])):
        data = read_table(root, split)
        assert data.classes == CLASSES and labels(root, split) == [wanted]
        assert data.name == f"pets/{split}"
    marked(root, ("emu", "dog", "cat"), (1, 0, 0))
    assert (
        read_table(root, "val").classes == read_table(root, "test").classes == ("emu", "dog", "cat")
    )


def test_a_file_of_classes(root: Path) -> None:
    (root / "classes.txt").write_text("emu\ncat\nfox\ndog\n")
    listed(root, "dog;cat", "emu")
    assert read_table(root, "train").classes == ("emu", "cat", "fox", "dog")
    listed(root, "fox", split="test")
    (root / "train.csv").unlink()  # not asked for any more
    assert labels(root, "test") == [["fox"]]


def test_classes_that_are_said_come_first(root: Path) -> None:
    (root / "classes.txt").write_text("ape\n")
    listed(root, "dog;7", "7")
    data = open_source("csv/labels", root, "train", classes=[7, "dog"])
    assert data.classes == ("7", "dog") and labels(root, classes=[7, "dog"]) == [
        ["7", "dog"],
        ["7"],
    ]


def test_columns_that_are_no_class_are_passed_over_where_classes_are_named(root: Path) -> None:
    marked(root, ("width", "dog", "cat"), (640, 1, 0), (480, 0, 1))
    file = root / "train.csv"
    assert said(lambda: read_table(root, "train")) == (
        f"{file}, line 2: column 'width' must be 0 or 1, got '640'; if it is not a class, list "
        "the classes in classes.txt"
    )
    assert labels(root, classes=["cat", "dog"]) == [["dog"], ["cat"]]


def test_a_class_without_a_column(root: Path) -> None:
    marked(root, ("dog", "cat"), (1, 0))
    file = marked(root, ("dgo", "cat"), (1, 0), split="val")
    assert said(lambda: read_table(root, "val")) == (
        f"{file} has no column for 1 of the 2 classes, the first is 'dog'; add it; did you mean "
        "'dgo'?"
    )


def test_a_column_that_train_does_not_have(root: Path) -> None:
    marked(root, ("dog", "cat"), (1, 0))
    marked(root, ("dog", "cat", "fox"), (1, 0, 1), (0, 0, 0), (0, 0, 1), split="val")
    message = said(lambda: read_table(root, "val"))
    assert message.startswith(
        "pets/val: 2 labels are not among the 2 classes, the first is 'fox' of "
    )
    assert labels(root, "val", unknown="skip") == [["dog"], [], []]


def test_no_class_is_known(root: Path) -> None:
    file = listed(root, "dog", split="val")
    assert said(lambda: read_table(root, "val")) == (
        f"{root}/train.csv, which defines the classes, does not exist; list them in "
        f"{root}/classes.txt"
    )
    file = listed(root, "", ";")
    assert said(lambda: read_table(root, "train")) == (
        f"{file} has no labels in any row; fill in its column 'labels'"
    )


@pytest.mark.parametrize("classes", ["dog", [], 3.0])
def test_classes_that_are_no_list(classes: Any, root: Path) -> None:
    listed(root, "dog")
    assert said(lambda: read_table(root, "train", classes=classes)) == (
        f"`classes` must be a list of names such as [cat, dog], got {classes!r}"
    )


def test_classes_that_come_twice(root: Path) -> None:
    listed(root, "dog")
    assert said(lambda: read_table(root, "train", classes=["dog", "cat", "dog"])) == (
        "`classes` has 'dog' twice; remove one of them"
    )
    (root / "classes.txt").write_text("dog\ndog\n")
    assert said(lambda: read_table(root, "train")).startswith(
        f"{root}/classes.txt, line 2: 'dog' is already in line 1"
    )


# -------------------------------------------------------------------------------------- policies


def test_labels_of_no_class(root: Path) -> None:
    listed(root, "dog;cat")
    listed(root, "dgo;cat", "emu", split="val")
    assert said(lambda: read_table(root, "val")) == (
        f"pets/val: 2 labels are not among the 2 classes, the first is 'dgo' of {root}/b/1.png; "
        f"correct them, or list all classes in {root}/classes.txt, or skip them with "
        "unknown='skip'; did you mean 'dog'?"
    )
    assert labels(root, "val", unknown="skip") == [["cat"], []]
    data = read_table(root, "val", unknown="skip", unlabelled="skip")
    assert data.paths == ("b/1.png",) and len(data.notes) == 2


def test_missing_images(root: Path) -> None:
    write(root, [("path", "labels"), ("3.png", "dog"), ("a/9.png", "cat"), ("c/9.png", "cat")])
    assert said(lambda: read_table(root, "train")) == (
        f"pets/train: 2 of 3 images do not exist, the first is {root}/a/9.png; put them there, or "
        "skip them with missing='skip'"
    )
    data = read_table(root, "train", missing="skip")
    assert data.paths == ("3.png",) and data.classes == ("cat", "dog")


# -------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "train.csv has no column 'path' with the paths of the images; it has none"),
        (
            "file,labels\n3.png,x\n",
            "train.csv has no column 'path' with the paths of the images; it h",
        ),
        (
            "Path,labels\n3.png,x\n",
            "train.csv has no column 'path' with the paths of the images; did ",
        ),
        (
            "path;labels\n3.png;x\n",
            "train.csv has no column 'path' with the paths of the images; did ",
        ),
        ("path\n3.png\n", "train.csv has neither a column 'labels' nor a column per class; add t"),
        ("path,dog,dog\n3.png,1,0\n", "train.csv has two columns 'dog'; rename one of them"),
        ("path,labels\n", "train.csv lists no images; write one line per image under a header"),
        ("path,labels\n3.png,x\n,y\n", "train.csv, line 3: the column 'path' is empty; fill it in"),
        ("path,labels\n3.png\n", "train.csv, line 2: 1 values for 2 columns; put values that"),
        ("path,labels\n\n3.png,x,y\n", "train.csv, line 3: 3 values for 2 columns; put values"),
        ('path,labels\n3.png,"x"y\n', "train.csv, line 2: "),
        ('path,labels\n3.png,"x\n', "train.csv, line 2: unexpected end of data; correct that row"),
        ("path,dog\n3.png,\n", "train.csv, line 2: column 'dog' must be 0 or 1, got ''"),
        (
            "path,dog\n3.png,1\na/2.png,-1\n",
            "train.csv, line 3: column 'dog' must be 0 or 1, got '-1'",
        ),
    ],
)
def test_tables_that_are_none(text: str, message: str, root: Path) -> None:
    (root / "train.csv").write_text(text)
    found = said(lambda: read_table(root, "train"))
    assert found.startswith(f"{root}/{message}") and "\n" not in found


def test_lines_are_counted_where_values_go_over_several(root: Path) -> None:
    (root / "train.csv").write_text('path,labels,note\n3.png,x,"two\nlines"\n,y,\n')
    assert said(lambda: read_table(root, "train")).startswith(
        f"{root}/train.csv, line 4: the column"
    )


def test_a_table_that_is_not_there(root: Path) -> None:
    listed(root, "dog")
    assert said(lambda: read_table(root, "val")).startswith(
        f"{root}/val.csv does not exist; write one line per image under a header with the columns"
    )
    assert said(lambda: read_table(root.parent / "pest", "val")).endswith("did you mean 'pets'?")


@pytest.mark.parametrize("separator", ["", 3, None])
def test_a_separator_that_is_none(separator: Any, root: Path) -> None:
    listed(root, "dog")
    assert said(lambda: read_table(root, "train", separator=separator)).startswith(
        "`separator` must be a non-empty string"
    )


# --------------------------------------------------------------------------------------- the recipe


def test_a_recipe_may_do_without_a_test_split(root: Path) -> None:
    listed(root, "dog;cat", "emu", "", "cat")
    listed(root, "dog", "emu", split="val")
    sources = open_sources(Data("csv/labels", root))
    assert {name: len(one) for name, one in sources.by_name.items()} == {"train": 4, "val": 2}
    assert sources.test is None and sources.classes == CLASSES
    listed(root, "dog", split="test")
    test = find_split(Data("csv/labels", root), "test")
    assert test is not None and len(test) == 1
