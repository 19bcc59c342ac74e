from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torch import Tensor

from mask_albums import photo, said, save_palette, values
from mask_albums import save as save_image
from stillhouse.batches import IGNORE
from stillhouse.data.catalogue import open_source
from stillhouse.data.source import Source

KNOWN = (*range(21), 255)
NAMES = {"train": ["2007_000032", "2007_000039"], "val": ["2007_000033"]}


def write_voc(root: Path, year: int = 2012, inner: str = "VOCdevkit/VOC{}") -> Path:
    """Palette masks with a border of 255; only some images are segmented."""
    place = root / inner.format(year)
    (place / "ImageSets" / "Segmentation").mkdir(parents=True)
    for number, (split, names) in enumerate(NAMES.items()):
        for i, name in enumerate(names):
            save_image(place / "JPEGImages" / f"{name}.jpg", photo(10 * number + i))
            mask = values(10 * number + i, KNOWN)
            save_palette(place / "SegmentationClass" / f"{name}.png", mask)
        listed = place / "ImageSets" / "Segmentation" / f"{split}.txt"
        listed.write_text("\n".join(names) + "\n")
    save_image(place / "JPEGImages" / "2008_000008.jpg", photo(5))  # with boxes only
    return place


def write_sbd(folder: Path, names: list[str]) -> Path:
    """GTcls.Segmentation of each image, as its authors store it."""
    (folder / "cls").mkdir(parents=True)
    for i, name in enumerate(names):
        content = {"Segmentation": values(40 + i, range(21)), "Boundaries": np.zeros((20, 1))}
        savemat(folder / "cls" / f"{name}.mat", {"GTcls": content})
    return folder


def opened(root: Path, split: str = "train", **options: object) -> Source:
    return open_source("voc/semantic", root, split, **options)


@pytest.mark.parametrize("inner", ["VOCdevkit/VOC{}", "VOC{}", ""])
def test_indices_of_the_palette_are_classes(inner: str, tmp_path: Path) -> None:
    write_voc(tmp_path, inner=inner)
    for split, seeds in (("train", (0, 1)), ("test", (10,))):
        data = opened(tmp_path, split)
        assert (len(data), data.name) == (len(seeds), f"voc/semantic/{split}")
        assert len(data.classes) == 21 and data.classes[:2] == ("background", "aeroplane")
        for index, seed in enumerate(seeds):
            image, mask, _ = data[index]
            assert isinstance(mask, Tensor) and mask.dtype == torch.uint8
            assert torch.equal(mask, torch.from_numpy(values(seed, KNOWN)))
            assert IGNORE in mask and image.shape == (3, *mask.shape)


def test_test_is_val_unless_there_is_a_test_set(tmp_path: Path) -> None:
    place = write_voc(tmp_path, 2007)
    assert said(lambda: opened(tmp_path, "val", year=2007)) == (
        "voc/semantic: there is no val split, as the images of val.txt are `test`; hold out "
        "samples of train with data.holdout=COUNT, or choose image sets with "
        "data.val.options.set=NAME and data.test.options.set=NAME"
    )
    assert len(opened(tmp_path, "val", year=2007, set="val")) == 1
    (place / "ImageSets" / "Segmentation" / "test.txt").write_text("2007_000039\n")
    assert opened(tmp_path, "test", year=2007).images == ("JPEGImages/2007_000039.jpg",)  # type: ignore[attr-defined]
    assert opened(tmp_path, "val", year=2007).images == ("JPEGImages/2007_000033.jpg",)  # type: ignore[attr-defined]


def test_the_year_is_checked(tmp_path: Path) -> None:
    write_voc(tmp_path, 2007)
    assert said(lambda: opened(tmp_path)) == (
        f"voc/semantic: {tmp_path} contains no VOC2012/JPEGImages; unpack it there; for VOC2007, "
        "which is there, set year=2007"
    )
    assert said(lambda: opened(tmp_path, year=2011)) == (
        "`year` must be 2007 or 2012, got 2011; did you mean '2012'?"
    )


def test_an_image_set_of_another_name(tmp_path: Path) -> None:
    place = write_voc(tmp_path)
    sets = place / "ImageSets" / "Segmentation"
    assert said(lambda: opened(tmp_path, set="trainval")) == (
        f"{sets}/trainval.txt does not exist; choose another image set with set=NAME; "
        "did you mean 'train'?"
    )
    (sets / "trainaug.txt").write_text("2007_000033\n2007_000032\n")
    data = opened(tmp_path, set="trainaug")
    assert data.images == ("JPEGImages/2007_000033.jpg", "JPEGImages/2007_000032.jpg")  # type: ignore[attr-defined]


def test_masks_in_another_folder(tmp_path: Path) -> None:
    place = write_voc(tmp_path)
    for i, name in enumerate(NAMES["train"]):
        save_image(place / "SegmentationClassAug" / f"{name}.png", values(60 + i, range(21)))
    mask = opened(tmp_path, masks="SegmentationClassAug")[1].target
    assert isinstance(mask, Tensor) and mask.tolist() == values(61, range(21)).tolist()


# -------------------------------------------------------------------------------------------- SBD


@pytest.mark.parametrize("inner", ["", "dataset", "benchmark_RELEASE/dataset"])
def test_sbd_adds_its_images_to_train_except_those_of_val(inner: str, tmp_path: Path) -> None:
    place = write_voc(tmp_path)
    names = ["2008_000009", "2007_000033", "2007_000032", "2008_000008"]
    write_sbd(tmp_path / "SBD" / inner, names)
    save_image(place / "JPEGImages" / "2008_000009.jpg", photo(6))
    data = opened(tmp_path, sbd="SBD")
    # one is of val, one has a mask of VOC already
    wanted = [*NAMES["train"], "2008_000008", "2008_000009"]
    assert [Path(path).stem for path in data.images] == wanted  # type: ignore[attr-defined]
    for index, seed, known in ((0, 0, KNOWN), (2, 43, range(21)), (3, 40, range(21))):
        mask = data[index].target
        assert isinstance(mask, Tensor) and mask.tolist() == values(seed, known).tolist()
    assert len(opened(tmp_path, "test", sbd="SBD")) == 1


def test_sbd_may_be_anywhere(tmp_path: Path) -> None:
    write_voc(tmp_path / "voc")
    write_sbd(tmp_path / "elsewhere", ["2008_000008"])
    data = opened(tmp_path / "voc", sbd=str(tmp_path / "elsewhere"))
    assert len(data) == 3 and isinstance(data[2].target, Tensor)
    assert data.fingerprint != opened(tmp_path / "voc").fingerprint
    # what is read at the start is the same
    assert len(opened(tmp_path / "voc", sbd=str(tmp_path / "elsewhere"), broken="skip")) == 3
    assert len(opened(tmp_path / "voc", sbd=str(tmp_path / "elsewhere"), mismatched="skip")) == 3


def test_mistakes_with_sbd(tmp_path: Path) -> None:
    write_voc(tmp_path)
    message = said(lambda: opened(tmp_path, sbd="SBD"))
    assert message.startswith(f"voc/semantic: {tmp_path}/SBD does not exist")
    (tmp_path / "SBD").mkdir()
    assert said(lambda: opened(tmp_path, sbd="SBD")) == (
        f"voc/semantic: {tmp_path}/SBD contains no cls/*.mat; set sbd to the folder of SBD"
    )
    (tmp_path / "SBD" / "cls").mkdir()
    file = tmp_path / "SBD" / "cls" / "2008_000008.mat"
    file.write_bytes(b"nothing")
    message = said(lambda: opened(tmp_path, sbd="SBD")[2])
    assert message.startswith(f"{file} cannot be read as a mask (")
    assert message.endswith("; repair it, or skip such files with data.broken=skip")
    data = opened(tmp_path, sbd="SBD", broken="skip")
    assert len(data) == 2
    savemat(file, {"GTother": 1})
    assert said(lambda: opened(tmp_path, sbd="SBD")[2]).startswith(f"{file} cannot be read")


# ------------------------------------------------------------------------------- data of one's own


def test_classes_of_ones_own(tmp_path: Path) -> None:
    place = write_voc(tmp_path, inner="")
    for name in (*NAMES["train"], *NAMES["val"]):
        save_palette(place / "SegmentationClass" / f"{name}.png", values(1, (0, 1, 2, 255)))
    data = opened(tmp_path, classes=["ground", "cat", "dog"])
    mask = data[0].target
    assert data.classes == ("ground", "cat", "dog") and isinstance(mask, Tensor)
    assert set(mask.unique().tolist()) == {0, 1, 2, IGNORE}


def test_masks_in_colours_say_what_to_do(tmp_path: Path) -> None:
    place = write_voc(tmp_path)
    mask = save_image(place / "SegmentationClass" / f"{NAMES['train'][0]}.png", photo(1))
    assert said(lambda: opened(tmp_path)[0]) == (
        f"{mask} has colours (RGB) where indices of classes are expected; save it as grey or "
        "palette PNG, or read it with folder/semantic and a table of colours"
    )
