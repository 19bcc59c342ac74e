"""Images and folders that nobody makes by accident: huge, endless, or of other numbers."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stillhouse.build.data import open_sources
from stillhouse.data import images
from stillhouse.data.fetch import fetch
from stillhouse.data.images import list_images, read_image, read_shapes
from stillhouse.data.instances.table import read_numbers
from stillhouse.data.semantic.values import read_values
from stillhouse.data.single.folder import read_folder
from stillhouse.data.source import notes_of
from stillhouse.data.transforms import Chain
from stillhouse.errors import UserError
from stillhouse.recipes import load
from stillhouse.recipes.schema import Data

DIGEST = "e916e416351ca6bf"  # of digits/raw, before there was a limit


@pytest.fixture(autouse=True)
def default_limit() -> None:
    images.limit_pixels(None)


def paint(path: Path, height: int = 4, width: int = 6) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(path)
    return path


def bomb(path: Path, side: int = 13_000) -> Path:
    """A PNG of a few bytes, whose header says that it is large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        whole = kind + data
        return struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    path.parent.mkdir(parents=True, exist_ok=True)
    body = chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + body)
    return path


# ------------------------------------------------------------------------------------------ pixels


@pytest.mark.parametrize("side", [13_000, 40_000])  # Pillow warns of the first, refuses the second
@pytest.mark.filterwarnings("error")
def test_a_huge_image_is_not_decoded(side: int, tmp_path: Path) -> None:
    file = bomb(tmp_path / "a.png", side)
    said = rf"a\.png cannot be read as an image \(it has {side:,} x {side:,} pixels, where "
    with pytest.raises(UserError, match=said + r"data\.max_pixels allows 89,478,485\); repair it"):
        read_image(file)
    with pytest.raises(UserError, match=r"cannot be read as a mask \(it has .*max_pixels"):
        read_values(file, colours=False)


def test_the_limit_of_pillow_is_left_as_it_was(tmp_path: Path) -> None:
    before = Image.MAX_IMAGE_PIXELS
    read_image(paint(tmp_path / "a.png"))
    with pytest.raises(UserError):
        read_image(bomb(tmp_path / "b.png"))
    assert before == Image.MAX_IMAGE_PIXELS is not None


def test_huge_images_are_skipped_and_counted(tmp_path: Path) -> None:
    paint(tmp_path / "train" / "cat" / "a.png")
    bomb(tmp_path / "train" / "cat" / "b.png")
    source = read_folder(tmp_path / "train", broken="skip")
    assert source.paths == ("cat/a.png",)
    (note,) = notes_of(source)
    assert "1 of 2 images cannot be read and are skipped; the first is" in note
    assert note.endswith("b.png") and notes_of(read_folder(tmp_path / "train")) == ()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_recipe_sets_the_limit_in_every_process(workers: int, tmp_path: Path) -> None:
    for split in ("train", "val"):
        paint(tmp_path / split / "cat" / "a.png")
        paint(tmp_path / split / "dog" / "a.png", 4, 5)
    data = Data("folder", tmp_path, max_pixels=24)
    sources = open_sources(data)
    indices = torch.tensor([[0, 1], [0, 0]])
    batches = fetch(sources.train, [Chain((), 0)], [indices[:, :1]], workers=workers)
    assert [fetched.images[0].shape for fetched in batches] == [(1, 3, 4, 6)]
    with pytest.raises(UserError, match="it has 4 x 6 pixels, where data.max_pixels allows 23"):
        open_sources(Data("folder", tmp_path, max_pixels=23))
    narrow = fetch(sources.train, [Chain((), 0)], [indices[:, :1]], workers=workers)
    with pytest.raises(UserError, match="data.max_pixels allows 23"):
        next(narrow)
    open_sources(Data("folder", tmp_path))
    assert images.pixel_limit() == images.MAX_PIXELS


def test_a_recipe_without_the_limit_keeps_its_hash() -> None:
    plain = load.load("digits/raw")
    assert "max_pixels" in load.to_dict(plain)["data"]
    assert load.digest(load.load("digits/raw", ["data.max_pixels=1000"])) != load.digest(plain)
    assert load.digest(plain) == DIGEST
    with pytest.raises(UserError, match="`max_pixels` must be at least 1, got 0"):
        load.load("digits/raw", ["data.max_pixels=0"])


@pytest.mark.parametrize("mode", ["F"])
def test_floating_point_pixels_are_refused(mode: str, tmp_path: Path) -> None:
    file = tmp_path / "a.tif"
    Image.fromarray(np.full((4, 6), 0.5, np.float32), mode).save(file)
    with pytest.raises(UserError, match=r"its pixels are floating-point numbers: save it with 8"):
        read_image(file)


# ----------------------------------------------------------------------------------- files, folders


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    paint(tmp_path / "train" / "cat" / "a.png")
    pipe = tmp_path / "train" / "cat" / "b.png"
    os.mkfifo(pipe)
    with pytest.raises(UserError, match=r"b\.png cannot be read as an image \(.*it is a pipe"):
        read_image(pipe)
    with pytest.raises(UserError, match=r"b\.png cannot be read as a mask \(.*it is a pipe"):
        read_values(pipe, colours=False)
    with pytest.raises(UserError, match=r"b\.png cannot be read as a mask \(.*it is a pipe"):
        read_numbers(pipe)
    assert read_shapes([pipe]) == [(0, 0)]
    assert read_folder(tmp_path / "train", broken="skip").skipped == (pipe,)


@pytest.mark.parametrize("name", ["a.xml", "a.json", "a.csv"])
def test_pipes_among_descriptions_are_not_waited_for(name: str, tmp_path: Path) -> None:
    from stillhouse.data.formats.coco import load_instances
    from stillhouse.data.formats.table import read_rows
    from stillhouse.data.formats.voc import read_annotation

    os.mkfifo(tmp_path / name)
    read = {
        "a.xml": read_annotation,
        "a.json": lambda file: load_instances(file, "", "copy it"),
        "a.csv": lambda file: list(read_rows(file, "copy it")),
    }
    with pytest.raises(UserError, match=f"{name} cannot be read .*it is a pipe or a device"):
        read[name](tmp_path / name)


def test_links_that_loop_are_followed_once(tmp_path: Path) -> None:
    for name in ("cat/a.png", "dog/b.png", "cat/deep/c.png"):
        paint(tmp_path / name)
    (tmp_path / "cat" / "self").symlink_to(tmp_path / "cat")
    (tmp_path / "cat" / "above").symlink_to(tmp_path)
    (tmp_path / "cat" / "deep" / "dogs").symlink_to(tmp_path / "dog")
    (tmp_path / "dog" / "cats").symlink_to(tmp_path / "cat")
    assert sorted(list_images(tmp_path, "cat")) == [
        "cat/a.png",
        "cat/deep/c.png",
        "cat/deep/dogs/b.png",
    ]
    assert len([*list_images(tmp_path, "")]) == 3


def test_many_links_to_each_other_end(tmp_path: Path) -> None:
    for name in map(str, range(12)):
        paint(tmp_path / name / "a.png")
        for other in map(str, range(12)):
            (tmp_path / name / f"to{other}").symlink_to(tmp_path / other)
    assert len([*list_images(tmp_path, "")]) == 12
