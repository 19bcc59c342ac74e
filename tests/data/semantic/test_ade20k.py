from __future__ import annotations

from pathlib import Path

import pytest
from torch import Tensor

from mask_albums import photo, said, save, values
from stillhouse.batches import IGNORE
from stillhouse.data.catalogue import open_source
from stillhouse.data.source import Source

NAMES = ("wall", "building, edifice", "sky", "floor, flooring", "crt screen")
HEADER = "Idx\tRatio\tTrain\tVal\tStuff\tName"


def write_names(root: Path, names: tuple[str, ...] = NAMES, header: str = HEADER) -> Path:
    rows = [f"{i}\t0.1576\t11664\t1172\t1\t{name}" for i, name in enumerate(names, 1)]
    file = root / "objectInfo150.txt"
    file.write_text("\n".join([header, *rows]) + "\n")
    return file


def write_ade20k(root: Path) -> Path:
    """Values from 0, which is other, to the number of classes."""
    for folder, count in (("training", 3), ("validation", 2)):
        for i in range(count):
            name = f"ADE_{folder[:5]}_{i:08d}"
            save(root / "images" / folder / f"{name}.jpg", photo(i))
            mask = values(i, range(len(NAMES) + 1))
            save(root / "annotations" / folder / f"{name}.png", mask)
    write_names(root)
    return root


def opened(root: Path, split: str = "train", **options: object) -> Source:
    return open_source("ade20k/semantic", root, split, **options)


@pytest.mark.parametrize("inner", ["", "ADEChallengeData2016"])
def test_0_is_ignored_and_classes_begin_at_1(inner: str, tmp_path: Path) -> None:
    write_ade20k(tmp_path / inner)
    for split, count in (("train", 3), ("test", 2)):
        data = opened(tmp_path, split)
        assert (len(data), data.name) == (count, f"ade20k/semantic/{split}")
        assert data.classes == ("wall", "building", "sky", "floor", "crt screen")
        for index in range(count):
            mask = data[index].target
            assert isinstance(mask, Tensor)
            written = values(index, range(len(NAMES) + 1)).astype(int)
            assert mask.tolist() == [[n - 1 if n else IGNORE for n in row] for row in written]


def test_val_is_held_out_or_named(tmp_path: Path) -> None:
    root = write_ade20k(tmp_path)
    assert said(lambda: opened(root, "val")).startswith(
        "ade20k/semantic: there is no val split, as the validation images are `test`; hold out "
    )
    assert len(opened(root, "val", part="validation")) == 2


def test_names_that_are_not_unique_are_kept_whole(tmp_path: Path) -> None:
    root = write_ade20k(tmp_path)
    write_names(root, ("screen, silver screen", "screen, monitor", "a", "b", "c"))
    assert opened(root).classes[:2] == ("screen, silver screen", "screen, monitor")
    # columns may be aligned with spaces
    write_names(root, tuple("abcde"), "Idx  Ratio  Train  Val  Stuff  Name")
    assert opened(root).classes == tuple("abcde")


def test_mistakes_with_names(tmp_path: Path) -> None:
    root = write_ade20k(tmp_path)
    remedy = "download it again, or list the classes with classes=[NAME, ...]"
    file = write_names(root, header="1\t2\t3")
    assert said(lambda: opened(root)) == (
        f"{file}: expected a header that ends in Name, and rows; {remedy}"
    )
    file.write_text("")
    assert "expected a header" in said(lambda: opened(root))
    file.unlink()
    assert said(lambda: opened(root)).startswith(f"{file} does not exist; {remedy}")
    assert opened(root, classes=list("abcde")).classes == tuple("abcde")


def test_a_value_above_the_classes_is_refused(tmp_path: Path) -> None:
    root = write_ade20k(tmp_path)
    data = opened(root, classes=list("abcd"))
    assert said(lambda: data[0]).startswith(
        f"{root}/annotations/training/ADE_train_00000000.png has the value 5 in row 0, column 5"
    )


def test_folders_that_are_missing(tmp_path: Path) -> None:
    assert said(lambda: opened(tmp_path)) == (
        f"ade20k/semantic: {tmp_path} contains no annotations; unpack the data set there"
    )
    (tmp_path / "annotations").mkdir()
    write_names(tmp_path)
    assert said(lambda: opened(tmp_path)) == (
        f"ade20k/semantic/train: {tmp_path}/images/training contains no images; put them there"
    )
