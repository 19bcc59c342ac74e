from __future__ import annotations

from pathlib import Path

import pytest
from torch import Tensor

from mask_albums import photo, said, save, values
from stillhouse.batches import IGNORE
from stillhouse.data.catalogue import open_source
from stillhouse.data.source import Source

COUNTS = {"train": 3, "val": 1, "test": 2}


def write_camvid(root: Path, suffix: str) -> Path:
    for split, count in COUNTS.items():
        for i in range(count):
            name = f"0001TP_{6690 + 30 * i:06d}"
            save(root / split / f"{name}.{suffix}", photo(i))
            save(root / f"{split}annot" / f"{name}.png", values(i, range(12)))
    return root


def opened(root: Path, split: str = "train", **options: object) -> Source:
    return open_source("camvid/semantic", root, split, **options)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("inner", ["", "CamVid"])
def test_11_classes_and_what_is_unlabelled(suffix: str, inner: str, tmp_path: Path) -> None:
    write_camvid(tmp_path / inner, suffix)
    for split, count in COUNTS.items():
        data = opened(tmp_path, split)
        assert (len(data), len(data.classes)) == (count, 11)
        assert data.classes[0] == "sky" and data.classes[-1] == "bicyclist"
        for index in range(count):
            mask = data[index].target
            written = values(index, range(12))
            assert isinstance(mask, Tensor)
            assert mask.tolist() == [[IGNORE if n == 11 else n for n in row] for row in written]


def test_folders_that_are_missing(tmp_path: Path) -> None:
    assert said(lambda: opened(tmp_path)) == (
        f"camvid/semantic: {tmp_path} contains no trainannot; unpack the data set there"
    )
    (tmp_path / "trainannot").mkdir()
    assert said(lambda: opened(tmp_path, "val")) == (
        f"camvid/semantic/val: {tmp_path}/val contains no images; put them there"
    )
