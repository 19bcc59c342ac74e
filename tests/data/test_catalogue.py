import io
import tarfile
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stillhouse.data import catalogue
from stillhouse.data.catalogue import ENTRIES, entries, entry, open_source
from stillhouse.data.source import Pixels, Source, targets_of
from stillhouse.errors import UserError

SPLITS = ("train", "val", "test")
SEVERAL = ("coco/labels", "voc/labels", "nuswide/labels", "csv/labels", "folder/labels")
BOXES = ("coco/objects", "voc/objects", "yolo/objects", "csv/objects")
PUBLISHED = ("cityscapes/semantic", "voc/semantic", "ade20k/semantic", "camvid/semantic")
MASKS = (*PUBLISHED, "folder/semantic")
OBJECT_MASKS = ("coco/instances", "cityscapes/instances", "folder/instances")
CLASSES = ("cifar10", "cifar100", "folder", "csv", "shards")
FROM_FILES = (*CLASSES, *SEVERAL, *BOXES, *MASKS, *OBJECT_MASKS)
SCENES = ("digits/labels", "digits/objects", "digits/semantic", "digits/instances")
EMBEDDED = ("digits/numbers", "digits/raw", *SCENES)
# by the end of the name
KINDS = {
    "labels": "labels",
    "objects": "objects",
    "semantic": "masks",
    "instances": "instances",
}


def said(make: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        make()
    return str(error.value)


def image(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8))


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Two classes; of each split another number of images."""
    for count, split in enumerate(SPLITS, 1):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                image(100 * count + 10 * label + i).save(tmp_path / split / name / f"{i}.png")
    return tmp_path


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """The same in shards."""
    for count, split in enumerate(SPLITS, 1):
        (tmp_path / split).mkdir()
        with tarfile.open(tmp_path / split / "0000.tar", "w") as archive:
            for label in range(2):
                for i in range(count):
                    file = io.BytesIO()
                    image(100 * count + 10 * label + i).save(file, "PNG")
                    add(archive, f"{label}{i}.png", file.getvalue())
                    add(archive, f"{label}{i}.cls", str(label).encode())
    return tmp_path


# ---------------------------------------------------------------------------------------- the list


def test_names_are_unique_and_lead_to_their_entries() -> None:
    names = [found.name for found in entries()]
    assert len(set(names)) == len(names)
    assert {*EMBEDDED, *FROM_FILES} == {found.name for found in ENTRIES}
    for found in entries():
        assert entry(found.name) is found or entry(found.name).name == found.name
        assert found.summary
        assert found.layout
        assert len(found.mean) == len(found.std) in (1, 3)
        assert all(0 < number < 1 for number in (*found.mean, *found.std))
        assert set(found.splits) <= set(SPLITS)
        assert found.kind == KINDS.get(found.name.rpartition("/")[2], "class")
        test = found.place.format(split="test")
        assert not test or f"path/{test} if there is one" in found.layout


@pytest.mark.parametrize("found", ENTRIES, ids=lambda found: found.name)
@pytest.mark.parametrize("split", SPLITS)
def test_every_entry_opens_or_says_what_it_needs(found: catalogue.Entry, split: str) -> None:
    if split not in found.splits:
        message = said(lambda: open_source(found.name, None, split))
        assert message == (
            f"{found.name} has no {split} split, only train and test; hold out samples of train "
            "with data.holdout=COUNT"
        )
    elif found.name in FROM_FILES:
        message = said(lambda: open_source(found.name, None, split))
        assert message == f"{found.name} is read from files; set data.path=FOLDER"
    else:
        data = open_source(found.name, None, split)
        image, label, key = data[0]
        assert len(image) == len(found.mean)
        assert key == 0
        labels = targets_of(data)
        if found.kind in ("objects", "instances"):
            assert labels.images == len(data) and label.images == 1
            assert (label.masks is not None) == (found.kind == "instances")
            assert labels.labels.unique().tolist() == list(range(len(data.classes)))
        elif found.kind == "labels":
            assert labels.shape == (len(data), len(data.classes))
            assert torch.equal(label, labels[0])
            assert labels.unique().tolist() == [0, 1]
            assert labels.any(0).all()
        elif found.kind == "masks":
            assert labels.shape == (len(data), *image.shape[1:])
            assert labels.dtype == torch.uint8 and torch.equal(label, labels[0])
            assert set(labels.unique().tolist()) - {255} == set(range(len(data.classes)))
        else:
            assert 0 <= label < len(data.classes)
            assert labels.max() == len(data.classes) - 1


@pytest.mark.parametrize(
    "name, sizes, shape",
    [
        ("digits/numbers", (6000, 2000, 5000), (1, 16, 32)),
        ("digits/raw", (200, 360, 359), (1, 8, 8)),
        ("digits/labels", (4000, 1000, 1500), (3, 48, 48)),
        ("digits/objects", (4000, 1000, 1500), (3, 48, 48)),
        ("digits/semantic", (4000, 1000, 1500), (3, 48, 48)),
        ("digits/instances", (4000, 1000, 1500), (3, 48, 48)),
    ],
)
def test_the_embedded_data_are_as_large_as_their_layout_says(
    name: str, sizes: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    for split, size in zip(SPLITS, sizes, strict=True):
        data = open_source(name, None, split)
        assert len(data) == size
        assert data[0].image.shape == shape
        assert f"{size} {split}" in entry(name).layout
        assert data.name == f"{name}/{split}"


@pytest.mark.parametrize("split", SPLITS)
def test_the_embedded_data_take_counts(split: str) -> None:
    for name in EMBEDDED:
        assert len(open_source(name, None, split, count=30, seed=4)) == 30
    assert len(open_source("digits/raw", None, "train", count=1078)) == 1078


def test_the_embedded_data_are_near_their_mean_and_deviation() -> None:
    for name in EMBEDDED:
        images = open_source(name, None, "train").images.double() / 255
        for channel, (mean, std) in enumerate(zip(entry(name).mean, entry(name).std, strict=True)):
            assert images[:, channel].mean() == pytest.approx(mean, abs=0.1)
            assert images[:, channel].std() == pytest.approx(std, abs=0.15)


# ----------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    "name, hint",
    [
        ("digits/number", "; did you mean 'digits/numbers'?"),
        ("digits", "; did you mean 'digits/numbers' or 'digits/raw' or 'digits/labels'?"),
        ("csv/object", "; did you mean 'csv/objects'?"),
        ("coco", "; did you mean 'coco/labels' or 'coco/objects' or 'coco/instances'?"),
        ("voc/label", "; did you mean 'voc/labels'?"),
        ("cityscape/semantic", "; did you mean 'cityscapes/semantic'?"),
        ("cifar-10", "; did you mean 'cifar10' or 'cifar100'?"),
        ("fodler", "; did you mean 'folder'?"),
        ("mnist", f"; known: {', '.join(found.name for found in ENTRIES)}"),
    ],
)
def test_an_unknown_name_is_refused(name: str, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "entry_points", lambda group: [])
    for make in (lambda: entry(name), lambda: open_source(name, None, "train")):
        assert said(make) == f"there is no data set {name!r}{hint}"


@pytest.mark.parametrize("name", [*EMBEDDED, *FROM_FILES])
@pytest.mark.parametrize("split", ["train", "test"])
def test_an_unknown_option_is_refused(name: str, split: str, tmp_path: Path) -> None:
    message = said(lambda: open_source(name, tmp_path, split, cont=3))
    assert message.startswith(f"data.{split}: {name} has no option 'cont'")


def test_mistakes_inside_of_a_reader_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path | None, split: str) -> Source:
        raise TypeError("unsupported operand")

    bring(monkeypatch, broken)
    with pytest.raises(TypeError, match="unsupported operand"):
        open_source("mine", None, "train")


# ----------------------------------------------------------------------------------------- plug-ins


def bring(monkeypatch: pytest.MonkeyPatch, made: Callable[..., Source], name: str = "mine") -> None:
    """An installed package that brings a data set."""

    class Point(EntryPoint):
        def load(self) -> Any:
            return made

    def points(group: str) -> list[EntryPoint]:
        assert group == "stillhouse.datasets"
        return [Point(name, "my.package:data", group)]

    monkeypatch.setattr(catalogue, "entry_points", points)


def test_a_package_brings_a_data_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def data(path: Path | None, split: str, shade: int = 0) -> Source:
        asked.append((path, split))
        images = torch.full((2, 3, 4, 4), shade, dtype=torch.uint8)
        return Pixels(images, torch.tensor([0, 1]), ("a", "b"), "print", "mine")

    bring(monkeypatch, data)
    found = entry("mine")
    assert (found.name, found.summary) == ("mine", "plugin my.package:data")
    assert [e.name for e in entries()] == [*(e.name for e in ENTRIES), "mine"]
    assert open_source("mine", tmp_path, "val", shade=9)[0].image.unique().tolist() == [9]
    assert asked == [(tmp_path, "val")]
    assert said(lambda: open_source("mine", None, "val", shad=9)) == (
        "data.val: mine has no option 'shad'"
    )
    assert said(lambda: entry("miné")).endswith("; did you mean 'mine'?")


def test_a_package_is_not_loaded_to_be_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("mine", "no_such_package_anywhere:data", catalogue.PLUGINS)
    monkeypatch.setattr(catalogue, "entry_points", lambda group: [point])
    assert entry("mine").summary == "plugin no_such_package_anywhere:data"
    with pytest.raises(ModuleNotFoundError):
        open_source("mine", None, "train")


# ------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("name", ["folder", "shards"])
def test_splits_lie_below_the_path(name: str, request: pytest.FixtureRequest) -> None:
    place = request.getfixturevalue({"folder": "folders", "shards": "tars"}[name])
    for count, split in enumerate(SPLITS, 1):
        data = open_source(name, place, split)
        assert targets_of(data).tolist() == [0] * count + [1] * count
        assert len(data) == 2 * count
        for index in range(2 * count):
            seed = 100 * count + 10 * (index // count) + index % count
            wanted = torch.from_numpy(np.array(image(seed))).permute(2, 0, 1)
            assert torch.equal(data[index].image, wanted)
    prints = {open_source(name, place, split).fingerprint for split in SPLITS}
    assert len(prints) == 3


def test_options_reach_the_reader(folders: Path) -> None:
    (folders / "train" / "cat" / "bad.png").write_bytes(b"no image")
    assert len(open_source("folder", folders, "train")) == 3
    assert len(open_source("folder", folders, "train", broken="skip")) == 2


def test_a_path_may_begin_at_home(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folders.parent))
    assert len(open_source("folder", Path("~") / folders.name, "train")) == 2


@pytest.mark.parametrize("name", FROM_FILES)
def test_files_that_are_missing_are_asked_for(name: str, tmp_path: Path) -> None:
    assert str(tmp_path) in said(lambda: open_source(name, tmp_path, "train"))
