"""What is done about images and masks with a problem."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mask_albums import SHAPE, photo, said, save, values, write_folder
from stillhouse.batches import IGNORE
from stillhouse.data.catalogue import open_source
from stillhouse.data.holdout import hold_out
from stillhouse.data.semantic import build
from stillhouse.data.semantic import values as mask_values
from stillhouse.data.semantic.policy import CHOICES, MaskPolicy
from stillhouse.data.semantic.source import MaskSource
from stillhouse.errors import UserError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folder(tmp_path)


def opened(root: Path, **options: Any) -> MaskSource:
    data = open_source("folder/semantic", root, "train", **options)
    assert isinstance(data, MaskSource)
    return data


def image_of(root: Path, number: int) -> Path:
    return root / "train" / "images" / f"{number}.png"


def mask_of(root: Path, number: int) -> Path:
    return root / "train" / "masks" / f"{number}.png"


def names(data: MaskSource) -> str:
    return "".join(Path(path).stem for path in data.images)


@pytest.fixture
def no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is used, neither a mask nor an image is read when a source is built."""

    def refuse(*given: object) -> Any:
        raise AssertionError("this reads all files")

    for module, name in ((build, "scan_masks"), (build, "are_readable"), (build, "read_shapes")):
        monkeypatch.setattr(module, name, refuse)


# -------------------------------------------------------------------------------------- unlabelled


def test_images_without_a_mask(root: Path, no_reading: None) -> None:
    mask_of(root, 2).unlink()
    text = f"{root.name}/train: 1 of 4 images have no mask"
    place = f"the first is {image_of(root, 2)}, whose mask would be {mask_of(root, 2)}"
    assert said(lambda: opened(root)) == (
        f"{text}, {place}; put it there, keep them with unlabelled='keep', or skip them with "
        "unlabelled='skip'"
    )
    skipped = opened(root, unlabelled="skip")
    assert names(skipped) == "013" and skipped.notes == (f"{text} and are skipped; {place}",)
    kept = opened(root, unlabelled="keep")
    assert names(kept) == "0123" and kept.notes == ()
    assert [kept[i].target is None for i in range(4)] == [False, False, True, False]
    assert torch.equal(kept[2].image, torch.from_numpy(photo(2)).permute(2, 0, 1))


def test_images_without_any_mask_are_kept_too(root: Path) -> None:
    for number in range(4):
        mask_of(root, number).unlink()
    for options in ({}, {"stratify": True, "broken": "skip", "empty": "skip"}):
        kept = opened(root, unlabelled="keep", **options)
        assert [kept[i].target for i in range(4)] == [None] * 4


def test_images_that_do_not_exist(tmp_path: Path) -> None:
    """Only a list can name them."""
    place = tmp_path / "ImageSets" / "Segmentation"
    place.mkdir(parents=True)
    (place / "train.txt").write_text("a\nb\n")
    save(tmp_path / "JPEGImages" / "a.jpg", photo(1))
    for name in "ab":
        save(tmp_path / "SegmentationClass" / f"{name}.png", values(1, range(21)))
    text = "voc/semantic/train: 1 of 2 images do not exist"
    path = tmp_path / "JPEGImages" / "b.jpg"
    assert said(lambda: open_source("voc/semantic", tmp_path, "train")) == (
        f"{text}, the first is {path}; put them there, or skip them with missing='skip'"
    )
    data = open_source("voc/semantic", tmp_path, "train", missing="skip")
    assert data.notes == (f"{text} and are skipped; the first is {path}",)  # type: ignore[attr-defined]
    assert len(data) == 1


# ------------------------------------------------------------------------------------------ broken


@pytest.mark.parametrize("what", ["image", "mask"])
@pytest.mark.parametrize("how", ["cut", "text", "empty"])
def test_files_that_are_damaged(what: str, how: str, root: Path) -> None:
    file = (image_of if what == "image" else mask_of)(root, 1)
    whole = file.read_bytes()
    file.write_bytes({"cut": whole[: len(whole) // 2], "text": b"not a file", "empty": b""}[how])
    data = opened(root)
    assert names(data) == "0123" and data[0].key == 0
    message = said(lambda: data[1])
    kind = "an image" if what == "image" else "a mask"
    assert message.startswith(f"{file} cannot be read as {kind} (")
    assert message.endswith("; repair it, or skip such files with data.broken=skip")
    skipped = opened(root, broken="skip")
    assert names(skipped) == "023"
    assert skipped.notes == (
        f"{root.name}/train: 1 of 4 images or masks cannot be read and are skipped; the first is "
        f"{image_of(root, 1)}",
    )


def test_a_damaged_mask_is_not_an_empty_one(root: Path) -> None:
    mask_of(root, 1).write_bytes(b"")
    assert names(opened(root, empty="skip", unknown="skip", mismatched="skip")) == "0123"


# -------------------------------------------------------------------------------------- mismatched


def test_masks_of_another_size(root: Path) -> None:
    save(mask_of(root, 3), values(3, range(3), (7, 9)))
    data = opened(root)
    assert said(lambda: data[3]) == (
        f"{mask_of(root, 3)} has 7 x 9 pixels, but its image {image_of(root, 3)} has 6 x 9; "
        "restore the mask of this image, or skip such images with mismatched='skip'"
    )
    skipped = opened(root, mismatched="skip")
    assert names(skipped) == "012"
    assert skipped.notes == (
        f"{root.name}/train: 1 of 4 masks have another size than their image and are skipped; the "
        f"first is {mask_of(root, 3)}",
    )


@pytest.mark.parametrize("turned", [False, True])
def test_images_on_their_side_have_the_orientation_of_their_mask(turned: bool, root: Path) -> None:
    """EXIF says that the image is to be turned; the mask shows whether the annotator saw it so."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(photo(0)).save(image_of(root, 0), exif=exif)
    shape = SHAPE[::-1] if turned else SHAPE
    save(mask_of(root, 0), values(0, range(3), shape))
    for options in ({}, {"mismatched": "skip"}):
        data = opened(root, **options)
        image, mask, _ = data[0]
        assert isinstance(mask, Tensor) and mask.shape == image.shape[1:] == shape
        assert len(data) == 4
    wanted = torch.from_numpy(photo(0)).permute(2, 0, 1)
    assert torch.equal(image, wanted.rot90(-1, (1, 2)) if turned else wanted)


# ----------------------------------------------------------------------------------------- unknown


def test_values_that_are_no_class(root: Path) -> None:
    mask = values(1, range(3))
    mask[3, 4] = mask[5, 5] = 9
    save(mask_of(root, 1), mask)
    assert said(lambda: opened(root)[1]) == (
        f"{mask_of(root, 1)} has the value 9 in row 3, column 4, which is no class; correct it, or "
        "ignore such pixels with unknown='ignore'"
    )
    text = f"{root.name}/train: 1 of 4 masks have values that are no class"
    first = f"the first is {mask_of(root, 1)}"
    ignored = opened(root, unknown="ignore")
    assert ignored.notes == (f"{text} and are read with these pixels ignored; {first}",)
    found = ignored[1].target
    mask[3, 4] = mask[5, 5] = IGNORE
    assert isinstance(found, Tensor) and found.tolist() == mask.tolist()
    skipped = opened(root, unknown="skip")
    assert names(skipped) == "023" and skipped.notes == (f"{text} and are skipped; {first}",)
    # where all masks are read in any case, it is said at the start
    assert said(lambda: opened(root, stratify=True)) == (
        f"{text}, {first}; correct them, ignore these pixels with unknown='ignore', or skip them "
        "with unknown='skip'"
    )


# ------------------------------------------------------------------------------------------- empty


def test_masks_without_a_class(root: Path) -> None:
    save(mask_of(root, 2), np.full(SHAPE, IGNORE, np.uint8))
    kept = opened(root)
    found = kept[2].target
    assert isinstance(found, Tensor) and found.unique().tolist() == [IGNORE]
    assert kept.notes == ()
    text = f"{root.name}/train: 1 of 4 masks have ignored pixels only"
    first = f"the first is {mask_of(root, 2)}"
    skipped = opened(root, empty="skip")
    assert names(skipped) == "013" and skipped.notes == (f"{text} and are skipped; {first}",)
    assert said(lambda: opened(root, empty="fail")) == (
        f"{text}, {first}; annotate them, keep them with empty='keep', or skip them with "
        "empty='skip'"
    )


def test_a_mask_of_unknown_values_is_empty_when_they_are_ignored(root: Path) -> None:
    save(mask_of(root, 2), np.full(SHAPE, 77, np.uint8))
    assert names(opened(root, unknown="ignore", empty="skip")) == "013"
    assert names(opened(root, unknown="ignore")) == "0123"


# ------------------------------------------------------------------------------------ all together


def spoil(root: Path) -> None:
    """Of eight images, one with each problem, and four good ones."""
    write_folder(root, count=8)
    mask_of(root, 0).unlink()
    image_of(root, 1).write_bytes(b"")
    save(mask_of(root, 2), values(2, range(3), (9, 9)))
    save(mask_of(root, 4), values(4, (0, 1, 2, 200)))
    save(mask_of(root, 6), np.full(SHAPE, IGNORE, np.uint8))


def test_everything_can_be_skipped_and_is_counted(root: Path) -> None:
    spoil(root)
    options = dict.fromkeys(("unlabelled", "broken", "mismatched", "unknown", "empty"), "skip")
    data = opened(root, **options)
    assert names(data) == "357"
    counts = [note.split(": ")[1].partition(" images or")[0] for note in data.notes]
    assert [count.split()[0] + "/" + count.split()[2] for count in counts] == [
        *("1/8", "1/7", "1/6", "1/5", "1/4"),
    ]
    for index, number in enumerate((3, 5, 7)):
        mask = data[index].target
        assert isinstance(mask, Tensor)
        assert mask.tolist() == values(number, range(3)).tolist()
    assert data.presence.tolist() == [[True] * 3] * 3


def test_no_image_is_left(root: Path) -> None:
    for number in range(4):
        save(mask_of(root, number), np.full(SHAPE, IGNORE, np.uint8))
    assert said(lambda: opened(root, empty="skip")) == (
        f"{root.name}/train: no images are left in {root} (4 of 4 masks have ignored pixels only "
        f"and are skipped; the first is {mask_of(root, 0)})"
    )


@pytest.mark.parametrize("option", CHOICES)
def test_the_choices_of_each_option(option: str) -> None:
    for choice in CHOICES[option]:
        assert getattr(MaskPolicy(**{option: choice}), option) == choice  # type: ignore[arg-type]
    with pytest.raises(UserError, match=f"`{option}` must be "):
        MaskPolicy(**{option: "swap"})  # type: ignore[arg-type]


def test_with_the_defaults_nothing_is_read(root: Path, no_reading: None) -> None:
    spoil(root)
    data = opened(root, unlabelled="skip")
    assert names(data) == "1234567" and not data.presence.any()
    rest, held = hold_out(data, 3)
    assert (len(rest), len(held)) == (4, 3)


# ------------------------------------------------------------------------------------------- cache


def test_masks_are_read_once_until_they_change(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real: Callable[..., Any] = mask_values.read_values

    def counted(path: Path, colours: bool) -> Any:
        read.append(path.stem)
        return real(path, colours)

    monkeypatch.setattr(mask_values, "read_values", counted)
    first = opened(root, stratify=True)
    assert sorted(read) == list("0123") and first.presence.all()
    assert torch.equal(opened(root, empty="skip").presence, first.presence)
    assert len(read) == 4
    save(mask_of(root, 1), np.zeros(SHAPE, np.uint8))
    again = opened(root, stratify=True)
    assert len(read) == 8 and again.presence[1].tolist() == [True, False, False]
    assert opened(root, stratify=True, ignore=[0]).presence.shape == (4, 3)
    assert len(read) == 12  # other classes
