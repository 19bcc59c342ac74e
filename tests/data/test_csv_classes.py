"""A table with one class for each image."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from stillhouse.build.data import open_sources
from stillhouse.data.single.table import read_table
from stillhouse.errors import UserError
from stillhouse.recipes.schema import Data
from stillhouse.recipes.splits import SplitSpec

ROWS = "path,label\na.png,dog\n./sub/b.png,cat\nc.png,dog\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    for i, name in enumerate(("a.png", "sub/b.png", "c.png")):
        Image.new("RGB", (6, 4), (10 * i, 0, 0)).save(tmp_path / name)
    (tmp_path / "train.csv").write_text(ROWS)
    (tmp_path / "val.csv").write_text("path,label\nc.png,dog\n")
    return tmp_path


def test_images_and_classes_are_those_of_the_rows(root: Path) -> None:
    source = read_table(root, "train")
    assert source.classes == ("cat", "dog") and source.targets.tolist() == [1, 0, 1]
    assert [int(source[i].image[0, 0, 0]) for i in range(3)] == [0, 10, 20]
    assert source[1].target == 0 and source[1].key == 1
    assert read_table(root, "val").targets.tolist() == [1]  # by the classes of train
    assert read_table(root, "train", classes=["dog", "cat"]).targets.tolist() == [0, 1, 0]
    assert source.fingerprint != read_table(root, "val").fingerprint


def test_it_is_read_by_a_recipe_with_broken_images_left_out(root: Path) -> None:
    (root / "c.png").write_bytes((root / "c.png").read_bytes()[:20])
    (root / "val.csv").write_text("path,label\na.png,dog\n")
    sources = open_sources(Data("csv", root, broken="skip"))
    assert len(sources.train) == 2 and isinstance(sources.train[0].image, torch.Tensor)
    assert "train: 1 of 3 images cannot be read and are skipped" in sources.notes[0]
    with pytest.raises(UserError, match=r"c.png cannot be read as an image .*data.broken=skip"):
        open_sources(Data("csv", root)).train[2]
    embedded = Data("digits/raw", broken="skip", train=SplitSpec(count=20))
    assert len(open_sources(embedded).train) == 20  # no files, none of which is broken


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("path,lable\na.png,dog\n", "has no column 'label'; did you mean 'lable'"),
        ("path,label\n,dog\n", "line 2: the column 'path' is empty"),
        ("path,label\na.png,dog,x\n", "line 2: 3 values for 2 columns"),
        ("path,label\na.png,dog\na.png,cat\n", "line 3: a.png has another label in line 2"),
        ("path,label\nnone.png,dog\n", "1 of 1 images do not exist"),
        ("path,label\n", "lists no images"),
    ],
)
def test_a_wrong_table_is_one_sentence(root: Path, text: str, sentence: str) -> None:
    (root / "train.csv").write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_table(root, "train")


def test_a_label_that_is_no_class_is_named(root: Path) -> None:
    (root / "val.csv").write_text("path,label\na.png,dgo\n")
    with pytest.raises(UserError, match=r"line 2: 'dgo' is none of the 2 classes.*mean 'dog'"):
        read_table(root, "val")


@pytest.mark.parametrize(("subset", "count"), [(40, 40), (0.25, 50), (1.0, 200)])
def test_a_subset_is_a_stratified_count_or_share(subset: int | float, count: int) -> None:
    whole = open_sources(Data("digits/raw"))
    part = open_sources(Data("digits/raw", train=SplitSpec(subset=subset)))
    assert len(part.train) == count and len(part.val) == len(whole.val)
    labels = torch.tensor([part.train[i].target for i in range(count)])
    shares = labels.bincount(minlength=10) / count
    assert shares.max() - shares.min() < 0.06
    assert (part.train.fingerprint == whole.train.fingerprint) == (subset == 1.0)


def test_a_subset_of_more_than_all_is_refused() -> None:
    with pytest.raises(UserError, match=r"data.train.subset=999 cannot be taken of 200 samples"):
        open_sources(Data("digits/raw", train=SplitSpec(subset=999)))
    with pytest.raises(ValueError, match="`subset` must be a count of at least 1, or a share"):
        SplitSpec(subset=1.5)
