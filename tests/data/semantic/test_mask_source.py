"""Sources of masks: hold-outs, fingerprints, workers, padding, and torch data sets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import tiny
from mask_albums import photo, said, save, values, write_folder
from stillhouse.batches import IGNORE, Batch
from stillhouse.data.catalogue import open_source
from stillhouse.data.holdout import hold_out
from stillhouse.data.loader import BatchSampler, Loader
from stillhouse.data.mixing import Mix
from stillhouse.data.mosaic import Mosaic
from stillhouse.data.positions import has_positions
from stillhouse.data.semantic.source import MaskSource
from stillhouse.data.source import FromTorch, classes_of, notes_of, take, targets_of
from stillhouse.data.targets import presence, resize_mask
from stillhouse.data.transforms import (
    ColorJitter,
    Flip,
    RandAugment,
    RandomCrop,
    RandomScale,
    Resize,
    Single,
    Transform,
)
from stillhouse.errors import UserError

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
SIZES = ((6, 9), (9, 6), (5, 12), (8, 8))


def write(root: Path, count: int = 12) -> Path:
    """Images of four sizes; the third of four classes is in every fourth only."""
    write_folder(root, count=0, classes=4)
    for i in range(count):
        known = (0, 1, 2, 255) if i % 4 == 3 else (0, 1, 255)
        save(root / "train" / "images" / f"{i:02d}.png", photo(i, SIZES[i % 4]))
        save(root / "train" / "masks" / f"{i:02d}.png", values(i, known, SIZES[i % 4]))
    return root


def opened(root: Path, **options: Any) -> MaskSource:
    data = open_source("folder/semantic", root, "train", **options)
    assert isinstance(data, MaskSource)
    return data


@pytest.fixture
def data(tmp_path: Path) -> MaskSource:
    return opened(write(tmp_path))


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The indices of samples that are read."""
    read: list[int] = []
    real = MaskSource.__getitem__

    def counted(self: MaskSource, index: int) -> Any:
        read.append(index)
        return real(self, index)

    monkeypatch.setattr(MaskSource, "__getitem__", counted)
    return read


# ---------------------------------------------------------------------------------------- hold-out


def test_masks_are_held_out_at_random_without_reading_them(
    data: MaskSource, unread: list[int]
) -> None:
    rest, held = hold_out(data, 4)
    assert (len(rest), len(held)) == (8, 4) and not unread
    assert sorted([*rest.indices.tolist(), *held.indices.tolist()]) == list(range(12))  # type: ignore[union-attr]
    assert torch.equal(hold_out(data, 4)[1].indices, held.indices)  # type: ignore[union-attr]
    assert not torch.equal(hold_out(data, 4, seed=1)[1].indices, held.indices)  # type: ignore[union-attr]
    assert has_positions(held) and has_positions(data) and not unread
    assert torch.equal(held[1].image, data[int(held.indices[1])].image)  # type: ignore[union-attr]


def test_on_request_they_are_held_out_by_class(tmp_path: Path) -> None:
    data = opened(write(tmp_path, 40), stratify=True)
    wanted = [[True, True, i % 4 == 3, False] for i in range(40)]
    assert data.presence.tolist() == wanted and classes_of(data).bool().tolist() == wanted
    for seed in range(5):
        held = hold_out(data, 12, seed)[1]
        assert int(classes_of(held)[:, 2].sum()) == 3


def test_a_part_of_a_part_knows_its_classes(tmp_path: Path) -> None:
    whole = opened(write(tmp_path), stratify=True)
    part = take(take(whole, torch.tensor([3, 4, 7]), "a"), torch.tensor([2, 0]), "b")
    assert classes_of(part)[:, 2].tolist() == [1, 1]
    assert notes_of(part) == whole.notes


# ----------------------------------------------------------------------------------------- targets


def test_a_few_masks_are_read_as_examples(data: MaskSource, unread: list[int]) -> None:
    for source in (data, hold_out(data, 2)[0]):
        unread.clear()
        found = targets_of(source, 1000)
        assert isinstance(found, Tensor) and found.shape == (8, 64, 64)
        assert found.dtype == torch.uint8 and len(unread) == 8
        assert set(found.unique().tolist()) == {0, 1, 2, IGNORE}
        first = source[0].target
        assert isinstance(first, Tensor) and torch.equal(found[0], resize_mask(first, 64, 64))


def test_all_masks_are_read_where_all_are_asked_for(data: MaskSource) -> None:
    found = targets_of(data)
    assert isinstance(found, Tensor) and len(found) == 12
    assert presence(found, 4)[:, 2].nonzero().flatten().tolist() == [3, 7, 11]


# ------------------------------------------------------------------------------------ fingerprints


def test_the_fingerprint_follows_files_and_classes(tmp_path: Path) -> None:
    first = opened(write(tmp_path)).fingerprint
    assert opened(tmp_path).fingerprint == first
    assert opened(tmp_path, stratify=True).fingerprint == first
    others = [
        opened(tmp_path, classes=list("abcd")).fingerprint,
        opened(tmp_path, ignore=[0, 255]).fingerprint,
        opened(tmp_path, unknown="ignore").fingerprint,
    ]
    mask = tmp_path / "train" / "masks" / "03.png"
    mask.write_bytes(mask.read_bytes() + b"more")
    others.append(opened(tmp_path).fingerprint)
    mask.unlink()
    others.append(opened(tmp_path, unlabelled="keep").fingerprint)
    others.append(opened(tmp_path, unlabelled="skip").fingerprint)
    assert len({first, *others}) == 7


def test_files_that_are_gone_are_reported(data: MaskSource) -> None:
    file = data.root / (data.masks[1] or "")
    file.unlink()
    assert said(lambda: data.fingerprint).startswith(f"{file} is gone since the data set was")
    assert said(lambda: data[1]).startswith(f"{file} cannot be read as a mask (")


# ------------------------------------------------------------------------------------- the loader


def loader(
    source: Any, transforms: tuple[Transform, ...] = (Flip(),), workers: int = 0, **options: Any
) -> Loader:
    sampler = options.pop("sampler", None) or BatchSampler(len(source), 4, True, 3)
    return Loader(source, sampler, MEAN, STD, transforms=transforms, workers=workers, **options)


def alike(found: list[Batch[Any]], wanted: list[Batch[Any]]) -> bool:
    return len(found) == len(wanted) and all(map(tiny.same, found, wanted))


@pytest.mark.parametrize("pad", [1, 8])
def test_a_batch_is_its_samples_moved_and_padded(pad: int, data: MaskSource) -> None:
    chain = (RandomScale(), ColorJitter(), Flip())
    single = Single(chain, 3)
    for batch in loader(data, chain, pad=pad).epoch(0):
        height, width = batch.images.shape[-2:]
        assert height % pad == width % pad == 0
        assert isinstance(batch.target, Tensor) and batch.target.dtype == torch.uint8
        assert batch.target.shape == (4, height, width) and batch.sizes is not None
        for place, key in enumerate(batch.keys.tolist()):
            sample = data[key]
            image, mask = single.sample(sample.image, sample.target, key, 0)
            assert isinstance(mask, Tensor)
            h, w = image.shape[1:]
            assert batch.sizes[place].tolist() == [h, w]
            assert batch.originals is not None
            assert batch.originals[place].tolist() == list(SIZES[key % 4])
            assert torch.equal(batch.target[place, :h, :w], mask)
            padded = batch.target[place].clone()
            padded[:h, :w] = IGNORE
            assert padded.unique().tolist() == [IGNORE]
            assert not batch.images[place, :, h:].any() and not batch.images[place, :, :, w:].any()


def test_workers_change_nothing(data: MaskSource) -> None:
    chain = (RandomScale(), RandomCrop(8), Flip())
    alone = list(loader(data, chain).epoch(1))
    assert [batch.images.shape for batch in alone] == [(4, 3, 8, 8)] * 3
    assert alike(list(loader(data, chain, workers=2).epoch(1, 1)), alone[1:])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_mask_that_is_refused_stops_the_loader_with_one_sentence(
    workers: int, data: MaskSource
) -> None:
    file = data.root / (data.masks[5] or "")
    save(file, np.full(SIZES[1], 100, np.uint8))
    with pytest.raises(UserError) as error:
        list(loader(data, workers=workers).epoch(0))
    assert str(error.value) == (
        f"{file} has the value 100 in row 0, column 0, which is no class; correct it, or ignore "
        "such pixels with unknown='ignore'"
    )


def test_images_without_masks_are_ignored_everywhere(tmp_path: Path) -> None:
    write(tmp_path)
    for number in (2, 6):
        (tmp_path / "train" / "masks" / f"{number:02d}.png").unlink()
    data = opened(tmp_path, unlabelled="keep")
    seen = 0
    for batch in loader(data, (Resize(8, square=True),)).epoch(0):
        assert isinstance(batch.target, Tensor)
        for key, mask in zip(batch.keys.tolist(), batch.target, strict=True):
            assert (mask.unique().tolist() == [-1]) == (key in (2, 6))
            seen += 1
    assert seen == 12
    only = take(data, torch.tensor([2, 6]), "only")
    batch = next(loader(only, sampler=BatchSampler(2, 2)).epoch(0))
    assert batch.target is None and batch.images.shape == (2, 3, 5, 12)


def test_what_does_not_go_with_masks_is_refused_before_anything_is_read(
    data: MaskSource, unread: list[int]
) -> None:
    with pytest.raises(UserError, match="data.mix mixes the classes of whole images"):
        loader(data, mixing=Mix(mixup=0.2))
    with pytest.raises(UserError, match="have no second view"):
        loader(data, strong=(Flip(),))
    with pytest.raises(UserError, match="rand_augment rotates and shears images"):
        loader(data, (RandAugment(),))
    assert not unread


def test_mosaics_of_masks(data: MaskSource) -> None:
    for batch in loader(data, mosaic=Mosaic(16)).epoch(0):
        assert isinstance(batch.target, Tensor) and batch.target.shape == (4, 16, 16)
        assert len(batch.target.unique()) > 1


# -------------------------------------------------------------------------------- torch data sets


def pairs(count: int = 6) -> list[tuple[Image.Image, Any]]:
    """As torchvision's VOCSegmentation gives them."""
    shapes = [SIZES[i % 4] for i in range(count)]
    return [
        (Image.fromarray(photo(i, shape)), Image.fromarray(values(i, (0, 1, 2, 255), shape)))
        for i, shape in enumerate(shapes)
    ]


def test_masks_of_a_torch_data_set() -> None:
    given = pairs()
    tensors = [(image, torch.from_numpy(np.array(mask))) for image, mask in given]
    stacked = [(image, mask[None].long()) for image, mask in tensors]
    for form in (given, tensors, stacked):
        source = FromTorch(form, ("a", "b", "c"), "toy", "print")
        for index, (_, mask) in enumerate(tensors):
            found = source[index].target
            assert isinstance(found, Tensor) and found.dtype == torch.uint8
            assert torch.equal(found, mask)
        assert has_positions(source, 1)
        rest, held = hold_out(source, 2)
        assert (len(rest), len(held)) == (4, 2)
        examples = targets_of(source, 3)
        assert isinstance(examples, Tensor) and examples.shape == (3, 64, 64)
        for batch in loader(source, sampler=BatchSampler(6, 3)).epoch(0):
            assert isinstance(batch.target, Tensor) and batch.target.ndim == 3


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.zeros(6, 9), "a mask must be (H, W) class indices, got torch.float32 of shape"),
        (torch.zeros(3, 6, 9).long(), "a mask must be (H, W) class indices, got torch.int64 of"),
        (torch.full((6, 9), 3), "the classes of a mask must be from 0 to 2, or 255 for ignored "),
        (torch.full((6, 9), -1), "the classes of a mask must be from 0 to 2, or 255 for ignored"),
        (torch.zeros(6, 8).long(), "the mask has 6 x 8 pixels, but the image 6 x 9; give both"),
    ],
    ids=["floats", "three", "above", "below", "size"],
)
def test_masks_that_are_none_are_refused(mask: Tensor, message: str) -> None:
    source = FromTorch([(pairs(1)[0][0], mask)], ("a", "b", "c"), "toy")
    assert said(lambda: source[0]).startswith(f"toy, sample 0: {message}")


def test_classes_in_masks_of_bytes() -> None:
    """Masks are uint8 where memory matters, and 255 is no class."""
    masks = torch.from_numpy(np.stack([values(i, (0, 2, 255)) for i in range(3)]))
    for target in (masks, masks.long()):
        assert presence(target, 4).tolist() == [[True, False, True, False]] * 3


def test_a_mask_source_is_small_in_a_worker(data: MaskSource) -> None:
    """What is sent to a worker are names, not pixels."""
    import pickle

    again = pickle.loads(pickle.dumps(replace(data)))
    assert torch.equal(again[3].target, data[3].target)
    assert len(pickle.dumps(data)) < 5000
