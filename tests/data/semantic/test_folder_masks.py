"""Masks of one's own: values of any format, colours, and the tables that name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mask_albums import SHAPE, Pixels, photo, said, save, save_palette, values, write_folder
from stillhouse.batches import IGNORE
from stillhouse.data.catalogue import open_source
from stillhouse.data.source import Source

COLOURS = {"road": (128, 64, 128), "tree": (0, 128, 0), "void": (0, 0, 0)}


def opened(root: Path, split: str = "train", **options: Any) -> Source:
    return open_source("folder/semantic", root, split, **options)


def mask_of(source: Source, index: int = 0) -> list[list[int]]:
    mask = source[index].target
    assert isinstance(mask, Tensor) and mask.dtype == torch.uint8
    found: list[list[int]] = mask.tolist()
    return found


def replaced(mask: Pixels, table: dict[int, int]) -> list[list[int]]:
    return [[table[value] for value in row] for row in mask.tolist()]


# ------------------------------------------------------------------------------------------ values


def test_images_and_masks_of_each_split(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("val", 2), ("test", 1)):
        write_folder(tmp_path, split, count)
    for split, count in (("train", 3), ("val", 2), ("test", 1)):
        data = opened(tmp_path, split)
        assert (len(data), data.name) == (count, f"{tmp_path.name}/{split}")
        assert data.classes == ("class 0", "class 1", "class 2")
        for index in range(count):
            image, _, key = data[index]
            assert key == index
            assert torch.equal(image, torch.from_numpy(photo(index)).permute(2, 0, 1))
            assert mask_of(data, index) == values(index, range(3)).tolist()


@pytest.mark.parametrize("kind", ["grey", "palette", "16 bit", "1 bit", "tiff"])
def test_every_format_of_values(kind: str, tmp_path: Path) -> None:
    write_folder(tmp_path, count=1, classes=2)
    mask, file = values(7, range(2)), tmp_path / "train" / "masks" / "0.png"
    if kind == "palette":
        save_palette(file, mask)
    elif kind == "1 bit":
        Image.fromarray(mask.astype(bool)).save(file)
    elif kind == "tiff":
        file.unlink()
        save(file.with_suffix(".tif"), mask.astype(np.uint16))
    else:
        save(file, mask.astype(np.uint16 if kind == "16 bit" else np.uint8))
    assert mask_of(opened(tmp_path)) == mask.tolist()


def test_values_of_16_bits(tmp_path: Path) -> None:
    write_folder(tmp_path, count=1, classes=2)
    mask = values(7, (0, 1, 40000))
    save(tmp_path / "train" / "masks" / "0.png", mask)
    table = {0: 0, 1: 1, 40000: IGNORE}
    assert mask_of(opened(tmp_path, ignore=40000)) == replaced(mask, table)
    assert " has the value 40000 in row 0, column 2, " in said(lambda: opened(tmp_path)[0])


def test_folders_inside_of_folders(tmp_path: Path) -> None:
    write_folder(tmp_path, count=1)
    save(tmp_path / "train" / "images" / "a" / "b.jpg", photo(9))
    save(tmp_path / "train" / "masks" / "a" / "b.png", values(9, range(3)))
    data = opened(tmp_path)
    assert data.images == ("train/images/0.png", "train/images/a/b.jpg")  # type: ignore[attr-defined]
    assert mask_of(data, 1) == values(9, range(3)).tolist()


@pytest.mark.parametrize(
    ("ignore", "table"),
    [
        (None, {0: 0, 1: 1, 2: 2, 255: IGNORE}),
        (255, {0: 0, 1: 1, 2: 2, 255: IGNORE}),
        ([255], {0: 0, 1: 1, 2: 2, 255: IGNORE}),
        ([0, 255], {0: IGNORE, 1: 0, 2: 1, 255: IGNORE}),
        ([1, 255], {0: 0, 1: IGNORE, 2: 1, 255: IGNORE}),
        (["class 0", 255], {0: IGNORE, 1: 0, 2: 1, 255: IGNORE}),
        (["class 1", "class 2", 255], {0: 0, 1: IGNORE, 2: IGNORE, 255: IGNORE}),
    ],
    ids=str,
)
def test_values_and_names_can_be_ignored(
    ignore: object, table: dict[int, int], tmp_path: Path
) -> None:
    """A value that is ignored needs no name; a name that is ignored has a value."""
    write_folder(tmp_path, count=1)
    mask = values(3, tuple(table))
    save(tmp_path / "train" / "masks" / "0.png", mask)
    data = opened(tmp_path, ignore=ignore)
    assert mask_of(data) == replaced(mask, table)
    assert ("class 0" in data.classes) == (ignore != ["class 0", 255])


def test_classes_may_be_listed_in_the_recipe(tmp_path: Path) -> None:
    write_folder(tmp_path)
    assert opened(tmp_path, classes=["a", "b", "c"]).classes == ("a", "b", "c")
    (tmp_path / "classes.txt").unlink()
    assert said(lambda: opened(tmp_path)) == (
        f"{tmp_path} has neither classes.txt nor classes.csv; list the classes there, or with "
        "classes=[NAME, ...]"
    )
    assert opened(tmp_path, classes=["a", "b", "c"]).classes == ("a", "b", "c")


# ----------------------------------------------------------------------------------------- colours


def paint(names: list[list[str]], colours: dict[str, tuple[int, int, int]]) -> Pixels:
    return np.array([[colours[name] for name in row] for row in names], dtype=np.uint8)


def coloured(root: Path, table: str | None = "name,r,g,b") -> list[list[str]]:
    """One mask in colours; without a header there is no table."""
    write_folder(root, count=1)
    (root / "classes.txt").unlink()
    names = np.random.default_rng(0).choice(list(COLOURS), SHAPE).tolist()
    save(root / "train" / "masks" / "0.png", paint(names, COLOURS))
    if table:
        rows = [f"{name},{r},{g},{b}" for name, (r, g, b) in COLOURS.items()]
        (root / "classes.csv").write_text("\n".join([table, *rows]) + "\n")
    return names  # type: ignore[no-any-return]


def indices(names: list[list[str]], *known: str) -> list[list[int]]:
    return [[known.index(name) if name in known else IGNORE for name in row] for row in names]


@pytest.mark.parametrize("header", ["name,r,g,b", "Name, R, G, B"])
def test_colours_of_a_table(header: str, tmp_path: Path) -> None:
    names = coloured(tmp_path, header)
    data = opened(tmp_path)
    assert data.classes == ("road", "tree", "void")
    assert mask_of(data) == indices(names, "road", "tree", "void")


def test_colours_of_a_recipe(tmp_path: Path) -> None:
    names = coloured(tmp_path, None)
    colours = {name: list(colour) for name, colour in COLOURS.items()}
    data = opened(tmp_path, colours=colours)
    assert data.classes == ("road", "tree", "void")
    assert mask_of(data) == indices(names, "road", "tree", "void")
    # and a table in the folder is not looked at
    (tmp_path / "classes.csv").write_text("name,r,g,b\nother,1,2,3\n")
    assert opened(tmp_path, colours=colours).fingerprint == data.fingerprint


@pytest.mark.parametrize("ignore", ["void", ["void"], [0, 0, 0], [[0, 0, 0]]], ids=str)
def test_colours_can_be_ignored(ignore: object, tmp_path: Path) -> None:
    names = coloured(tmp_path)
    data = opened(tmp_path, ignore=ignore)
    known = [name for name in data.classes if name != "void"]
    assert known == ["road", "tree"]
    assert mask_of(data) == indices(names, *data.classes)


def test_colours_without_a_class_are_ignored(tmp_path: Path) -> None:
    names = coloured(tmp_path)
    data = opened(tmp_path, classes=["tree", "road"])
    assert data.classes == ("tree", "road")
    assert mask_of(data) == indices(names, "tree", "road")


@pytest.mark.parametrize("mode", ["P", "RGBA", "L"])
def test_colours_in_other_modes(mode: str, tmp_path: Path) -> None:
    names = coloured(tmp_path, None)
    colours = COLOURS
    if mode == "L":  # two classes of 0 and 255, as many tools write them
        colours = {"road": (0, 0, 0), "tree": (255, 255, 255), "void": (7, 7, 7)}
    image = Image.fromarray(paint(names, colours))
    image = image.quantize(8) if mode == "P" else image.convert(mode)
    if mode == "P":
        image.info["transparency"] = 0
    image.save(tmp_path / "train" / "masks" / "0.png")
    data = opened(tmp_path, colours={name: list(colour) for name, colour in colours.items()})
    assert mask_of(data) == indices(names, "road", "tree", "void")


def test_a_colour_of_no_class(tmp_path: Path) -> None:
    coloured(tmp_path)
    mask = paint([["road"] * 9] * 6, COLOURS)
    mask[2, 4] = (1, 2, 3)
    file = save(tmp_path / "train" / "masks" / "0.png", mask)
    assert said(lambda: opened(tmp_path)[0]) == (
        f"{file} has the colour (1, 2, 3) in row 2, column 4, which is no class; correct it, or "
        "ignore such pixels with unknown='ignore'"
    )
    found = mask_of(opened(tmp_path, unknown="ignore"))
    assert found[2].count(IGNORE) == 1 and found[2][4] == IGNORE


# ---------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,r,g\na,1,2\n", "{} has no column 'b'; write a class per line under the header"),
        ("name,r,r,g,b\n", "{} has two columns 'r'; rename one of them"),
        ("name,r,g,b\n", "{} lists no classes; write a class per line"),
        ("name,r,g,b\na,1,2\n", "{}, line 2: 3 values for 4 columns"),
        ("name,r,g,b\n,1,2,3\n", "{}, line 2: the name '' is empty or repeated; correct it"),
        ("name,r,g,b\na,1,2,3\na,3,2,1\n", "{}, line 3: the name 'a' is empty or repeated"),
        (
            "name,r,g,b\na,1,2,256\n",
            "{}, line 2: a colour must be three whole numbers from 0 to 255, got [1, 2, 256]",
        ),
        ("name,r,g,b\na,1,2,x\n", "{}, line 2: a colour must be three whole numbers"),
        (
            "name,r,g,b\na,1,2,3\nb,1,2,3\n",
            "{}: 'a' and 'b' have the same colour (1, 2, 3); correct one of them",
        ),
    ],
    ids=str,
)
def test_mistakes_in_the_table(content: str, message: str, tmp_path: Path) -> None:
    coloured(tmp_path)
    file = tmp_path / "classes.csv"
    file.write_text(content)
    assert said(lambda: opened(tmp_path)).startswith(message.format(file))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": []}, "`classes` must be a list of names"),
        ({"classes": ["a", "a"]}, "`classes` has 'a' twice"),
        ({"ignore": "clas 1"}, "`ignore` has 'clas 1', which is not a value or the name of a"),
        ({"ignore": -1}, "`ignore` has -1, which is not a value or the name of a class; known"),
        ({"ignore": [[0, 0, 0]]}, "`ignore` has [0, 0, 0], which is not a value or the name"),
        ({"colours": ["a"]}, "`colours` must be a mapping such as {road: [128, 64, 128]}, got"),
        ({"colours": {}}, "`colours` must be a mapping"),
        ({"colours": {"a": [1, 2]}}, "`colours`, a: a colour must be three whole numbers"),
        ({"colours": {"a": [1, 2, 3], "b": [1, 2, 3]}}, "`colours`: 'a' and 'b' have the same"),
        (
            {"colours": {"a": [1, 2, 3]}, "classes": ["b"]},
            "`classes` has 'b', which is not a name of the table of colours; known: a",
        ),
        (
            {"colours": {"a": [1, 2, 3]}, "ignore": ["b"]},
            "`ignore` has 'b', which is not a colour [r, g, b] or the name of one; known: a",
        ),
        (
            {"colours": {"a": [1, 2, 3]}, "ignore": [[1, 2]]},
            "`ignore`: a colour must be three whole numbers from 0 to 255, got [1, 2]",
        ),
        ({"classes": [f"{i}" for i in range(256)]}, "{}: there are 256 classes, but masks can"),
        ({"stratify": "yes"}, "`stratify` must be true or false, got 'yes'"),
        ({"unknown": "clip"}, "`unknown` must be 'ignore', 'skip' or 'fail', got 'clip'"),
    ],
    ids=str,
)
def test_mistakes_in_options(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_folder(tmp_path)
    wanted = message.replace("{}", f"{tmp_path.name}/train", 1) if message[0] == "{" else message
    assert said(lambda: opened(tmp_path, **options)).startswith(wanted)


def test_colours_without_a_table_say_what_to_do(tmp_path: Path) -> None:
    coloured(tmp_path, None)
    (tmp_path / "classes.txt").write_text("a\nb\n")
    assert said(lambda: opened(tmp_path)[0]) == (
        f"{tmp_path}/train/masks/0.png has colours (RGB) where indices of classes are expected; "
        "save it as grey or palette PNG, or read it with folder/semantic and a table of colours"
    )


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_masks_with_losses_are_refused(suffix: str, tmp_path: Path) -> None:
    write_folder(tmp_path)
    masks = tmp_path / "train" / "masks"
    file = save(masks / f"2.{suffix}", values(2, range(3)))
    assert mask_of(opened(tmp_path), 2) == values(2, range(3)).tolist()  # beside 2.png
    (masks / "2.png").unlink()
    assert said(lambda: opened(tmp_path)) == (
        f"{tmp_path.name}/train: {file} is compressed with losses, which changes the values of a "
        "mask; save masks as PNG"
    )


def test_folders_that_are_missing(tmp_path: Path) -> None:
    write_folder(tmp_path)
    assert said(lambda: opened(tmp_path, "val")) == (
        f"{tmp_path.name}/val: {tmp_path}/val/images contains no images; put them there"
    )
    assert said(lambda: opened(tmp_path / "x")).startswith(
        f"folder/semantic: {tmp_path}/x does not exist"
    )
