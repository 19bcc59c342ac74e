from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from stillhouse.data import source as module
from stillhouse.data.holdout import hold_out
from stillhouse.data.source import (
    FromTorch,
    Pixels,
    SourceSubset,
    fingerprint_of_content,
    fingerprint_of_files,
    fingerprint_of_recipe,
    take,
    targets_of,
)
from stillhouse.data.stratify import stratify
from stillhouse.errors import UserError

CLASSES = ("a", "b", "c")


def pixels(labels: list[int] | Tensor, seed: int = 0) -> Pixels:
    labels = torch.as_tensor(labels)
    made = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (len(labels), 2, 3, 4), generator=made).to(torch.uint8)
    return Pixels(images, labels, CLASSES, f"seed {seed}", "toy")


class Torch(list):
    """A torch data set of the map style, in as few words as there can be."""


def image(seed: int = 0, shape: tuple[int, ...] = (3, 5, 4)) -> Tensor:
    made = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=made).to(torch.uint8)


def from_torch(*items: Any, name: str = "toy", classes: tuple[str, ...] = CLASSES) -> FromTorch:
    return FromTorch(Torch(items), classes, name)


LONG = [0] * 60 + [1] * 30 + [2] * 10


# -------------------------------------------------------------------------------------- in memory


def test_pixels_give_samples() -> None:
    data = pixels([2, 0, 1])
    assert len(data) == 3
    for index, label in enumerate((2, 0, 1)):
        sample = data[index]
        assert torch.equal(sample.image, data.images[index])
        assert (sample.target, sample.key) == (label, index)
        assert type(sample.target) is int
    assert targets_of(data) is data.targets


@pytest.mark.parametrize(
    "images, said",
    [
        (torch.zeros(3, 1, 2, 2), "got torch.float32 of shape (3, 1, 2, 2)"),
        (torch.zeros(3, 2, 2, dtype=torch.uint8), "got torch.uint8 of shape (3, 2, 2)"),
        (torch.zeros(2, 1, 2, 2, dtype=torch.uint8), "toy: there are 2 images, but 3 targets"),
    ],
    ids=["floats", "no channels", "too few"],
)
def test_pixels_refuse(images: Tensor, said: str) -> None:
    with pytest.raises(UserError) as error:
        replace(pixels([0, 1, 2]), images=images)
    assert str(error.value).startswith("toy: ")
    assert said in str(error.value)


# ------------------------------------------------------------------------------------------- parts


@pytest.mark.parametrize("kind", ["pixels", "torch"])
def test_take_numbers_anew(kind: str) -> None:
    data = pixels([0, 1, 2, 1, 0])
    whole = data if kind == "pixels" else from_torch(*zip(data.images, data.targets, strict=True))
    part = take(whole, torch.tensor([3, 0, 4]), "some")
    assert isinstance(part, Pixels if kind == "pixels" else SourceSubset)
    assert (part.name, part.classes, len(part)) == ("some", CLASSES, 3)
    for index, place in enumerate((3, 0, 4)):
        sample = part[index]
        assert torch.equal(sample.image, data.images[place])
        assert (sample.target, sample.key) == (int(data.targets[place]), index)
    assert targets_of(part).tolist() == [1, 0, 0]
    again = take(part, torch.tensor([2, 1]), "fewer")
    assert [again[i].target for i in range(2)] == targets_of(again).tolist() == [0, 0]
    assert torch.equal(again[0].image, data.images[4])
    assert len(list(part)) == 3  # ends, as a sequence does


def test_a_part_knows_what_it_is_part_of() -> None:
    data, indices = pixels([0, 1, 2]), torch.tensor([0, 2])
    first = take(data, indices, "x").fingerprint
    assert take(data, indices.clone(), "y").fingerprint == first
    assert take(data, torch.tensor([2, 0]), "x").fingerprint != first
    assert take(data, torch.tensor([0]), "x").fingerprint != first
    assert take(pixels([0, 1, 2], seed=1), indices, "x").fingerprint != first
    assert first != data.fingerprint


def keys_of(part: Pixels | SourceSubset, whole: Pixels) -> set[int]:
    places = [(whole.images == part[i].image).flatten(1).all(1).nonzero() for i in range(len(part))]
    assert all(len(place) == 1 for place in places)
    return {int(place) for place in places}


@pytest.mark.parametrize("kind", ["pixels", "torch"])
@pytest.mark.parametrize(
    "held, shares",
    [(10, [6, 3, 1]), (0.2, [12, 6, 2]), (25, [15, 8, 2]), (1, [1, 0, 0]), (99, [59, 30, 10])],
)
def test_split_is_a_stratified_partition(kind: str, held: float, shares: list[int]) -> None:
    data = pixels(torch.tensor(LONG)[torch.randperm(100)])
    whole = data if kind == "pixels" else from_torch(*zip(data.images, data.targets, strict=True))
    rest, val = hold_out(whole, held)
    assert targets_of(val).bincount(minlength=3).tolist() == shares
    assert len(rest) + len(val) == 100
    ours, theirs = keys_of(rest, data), keys_of(val, data)
    assert not ours & theirs
    assert ours | theirs == set(range(100))
    assert (rest.name, val.name) == ("toy/train", "toy/val")
    assert len({rest.fingerprint, val.fingerprint, whole.fingerprint}) == 3


def test_split_follows_labels_and_seed_alone() -> None:
    data = pixels(LONG)
    first = hold_out(data, 20)
    torch.manual_seed(9)
    for mine, other in zip(first, hold_out(data, 20), strict=True):
        assert mine.fingerprint == other.fingerprint
        assert torch.equal(mine.images, other.images)
    elsewhere = hold_out(pixels(LONG, seed=5), 20)[1]
    wanted = keys_of(first[1], data)
    assert keys_of(elsewhere, pixels(LONG, seed=5)) == wanted
    assert keys_of(hold_out(data, 20, seed=1)[1], data) != wanted


@pytest.mark.parametrize("held", [0, 100, 101, -1, 0.0, 1.0, 0.001, 1.5])
def test_split_refuses(held: float) -> None:
    with pytest.raises(UserError) as error:
        hold_out(pixels(LONG), held)
    assert str(error.value) == (
        f"toy: cannot hold out {held} of 100 samples; give a count below 100 or a fraction "
        "between 0 and 1"
    )


def largest_remainders(sizes: list[int], count: int) -> list[int]:
    """Hamilton's method in whole numbers."""
    total = sum(sizes)
    quota = [size * count // total for size in sizes]
    order = sorted(range(len(sizes)), key=lambda i: (-(sizes[i] * count % total), i))
    for place in order[: count - sum(quota)]:
        quota[place] += 1
    return quota


@pytest.mark.parametrize("sizes", [[60, 30, 10], [7, 7, 7], [1, 1, 98], [5, 3, 2], [1, 2, 3]])
def test_stratified_gives_each_class_its_share(sizes: list[int]) -> None:
    labels = torch.arange(3).repeat_interleave(torch.tensor(sizes))
    for count in range(1, sum(sizes) + 1):
        chosen = stratify(labels, 3, count, seed=0)
        assert chosen.tolist() == sorted(set(chosen.tolist()))
        assert labels[chosen].bincount(minlength=3).tolist() == largest_remainders(sizes, count)


def test_stratified_takes_members_at_random() -> None:
    labels = torch.zeros(1000, dtype=torch.int64)
    chosen = torch.cat([stratify(labels, 3, 100, seed) for seed in range(50)]).double()
    assert abs(chosen.mean() - 499.5) < 4 * 1000 / 12**0.5 / 5000**0.5


# -------------------------------------------------------------------------------------- from torch


def test_images_of_pillow() -> None:
    pixels_ = image(shape=(5, 4, 3)).numpy()
    grey, colour = Image.fromarray(pixels_[:, :, 0].copy()), Image.fromarray(pixels_)
    palette = colour.convert("P", palette=Image.Palette.ADAPTIVE)
    alpha = Image.fromarray(np.dstack([pixels_, pixels_[:, :, :1]]), "RGBA")
    data = from_torch((grey, 0), (colour, 1), (palette, 2), (alpha, 0))
    rgb = torch.from_numpy(pixels_).permute(2, 0, 1)
    assert [image.mode for image in (grey, colour, palette, alpha)] == ["L", "RGB", "P", "RGBA"]
    assert torch.equal(data[0].image, rgb[:1])
    assert torch.equal(data[1].image, rgb)
    assert torch.equal(data[2].image, rgb)  # 20 colours fit into a palette
    assert torch.equal(data[3].image, rgb)  # its transparency is dropped
    for index, label in enumerate((0, 1, 2, 0)):
        assert data[index].image.dtype == torch.uint8
        assert data[index].image.is_contiguous()
        assert (data[index].target, data[index].key) == (label, index)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_images_of_floats_are_taken_back_to_bytes(dtype: torch.dtype) -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    data = from_torch((levels.to(dtype) / 255, 1), (levels, 1))
    assert torch.equal(data[0].image, levels)
    assert torch.equal(data[1].image, levels)


@pytest.mark.parametrize(
    "label", [1, np.int64(1), torch.tensor(1), torch.tensor([1]), np.array([1]), True]
)
def test_labels_of_any_integer(label: object) -> None:
    sample = from_torch((image(), label))[0]
    assert sample.target == 1
    assert type(sample.target) is int


@pytest.mark.parametrize("label", [3, -1, 1000])
def test_labels_outside_of_the_classes_are_refused(label: int) -> None:
    data = from_torch((image(), 0), (image(), label))
    with pytest.raises(UserError) as error:
        data[1]
    assert str(error.value) == f"toy, sample 1: label must be from 0 to 2, got {label}"


@pytest.mark.parametrize("label", ["cat", 1.7, torch.tensor(1.0)])
def test_labels_that_are_no_index_are_refused(label: object) -> None:
    with pytest.raises(UserError) as error:
        from_torch((image(), label))[0]
    assert str(error.value) == (
        f"toy, sample 0: a label must be a class index, or 0 or 1 for each class, got {label!r}"
    )


def test_no_label_is_none() -> None:
    data = from_torch((image(), 2), (image(), None))
    assert data[1].target is None
    assert targets_of(data).tolist() == [2, -1]
    assert targets_of(from_torch((image(), None), (image(), None))) is None


@pytest.mark.parametrize("item", [image(), 3, (image(),), {"image": image()}, None], ids=type)
def test_items_that_are_no_pair_are_refused(item: object) -> None:
    with pytest.raises(UserError, match=r"^toy, sample 0: expected \(image, target\), got \w+$"):
        from_torch(item)[0]


@pytest.mark.parametrize(
    "bad, said",
    [
        (np.zeros((4, 4, 3), np.uint8), "an image must be a PIL image or a (C, H, W) tensor"),
        (torch.zeros(4, 4), "an image must be a PIL image or a (C, H, W) tensor"),
        (torch.zeros(1, 3, 4, 4), "an image must be a PIL image or a (C, H, W) tensor"),
        (torch.zeros(3, 0, 4), "an image must be a PIL image or a (C, H, W) tensor"),
        (torch.full((1, 2, 2), -0.1), "a tensor must hold uint8, or floats from 0 to 1"),
        (torch.full((1, 2, 2), 1.1), "a tensor must hold uint8, or floats from 0 to 1"),
        (torch.full((1, 2, 2), torch.nan), "a tensor must hold uint8, or floats from 0 to 1"),
        (torch.zeros(1, 2, 2, dtype=torch.int64), "a tensor must hold uint8, or floats"),
    ],
    ids=["numpy", "flat", "batch", "empty", "negative", "above 1", "nan", "integers"],
)
def test_images_that_are_none_are_refused(bad: object, said: str) -> None:
    with pytest.raises(UserError) as error:
        from_torch((bad, 0))[0]
    assert str(error.value).startswith(f"toy, sample 0: {said}")


def test_labels_are_read_where_nobody_knows_them() -> None:
    data = from_torch(*((image(i), i % 3) for i in range(7)))
    labels = targets_of(data)
    assert labels.dtype == torch.int64
    assert labels.tolist() == [0, 1, 2, 0, 1, 2, 0]


# ------------------------------------------------------------------------------------ fingerprints


def many(count: int = 40, **changes: tuple[Tensor, int]) -> list[tuple[Tensor, int]]:
    items = [(image(i), i % 3) for i in range(count)]
    for place, item in changes.items():
        items[int(place[1:])] = item
    return items


def test_fingerprint_of_a_torch_data_set() -> None:
    first = from_torch(*many()).fingerprint
    assert from_torch(*many()).fingerprint == first
    assert from_torch(*many(41)).fingerprint != first
    assert from_torch(*many(i0=(image(99), 0))).fingerprint != first
    assert from_torch(*many(i39=(image(39), 1))).fingerprint != first
    assert from_torch(*many(), name="other").fingerprint != first
    assert from_torch(*many(), classes=("a", "b", "d")).fingerprint != first
    assert FromTorch(Torch(many()), CLASSES, "toy", "given").fingerprint == "given"


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 9, 1000])
def test_fingerprint_reads_eight_samples_at_most(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    getitem = FromTorch.__getitem__
    monkeypatch.setattr(
        module.FromTorch, "__getitem__", lambda self, i: read.append(i) or getitem(self, i)
    )
    from_torch(*[(image(), 0)] * count).fingerprint  # noqa: B018
    assert len(read) == min(count, 8)
    if count:
        assert (min(read), max(read)) == (0, count - 1)


def test_fingerprint_of_content() -> None:
    x = torch.arange(6, dtype=torch.uint8)
    first = fingerprint_of_content([x.view(2, 3)], CLASSES)
    assert fingerprint_of_content([x.clone().view(2, 3)], CLASSES) == first
    # The same numbers, however they lie in memory.
    assert fingerprint_of_content([x.view(2, 3).T.contiguous().T], CLASSES) == first
    others = [x.view(3, 2), x.view(2, 3).to(torch.int16), x.view(2, 3) + 1]
    digests = {fingerprint_of_content([other], CLASSES) for other in others}
    digests.add(fingerprint_of_content([x.view(2, 3)], CLASSES[:2]))
    digests.add(fingerprint_of_content([x.view(2, 3)] * 2, CLASSES))
    assert len(digests | {first}) == 6


def test_fingerprint_of_files() -> None:
    files = [("a/x", 3, 0), ("b/y", 4, 1)]
    first = fingerprint_of_files(files, CLASSES)
    assert fingerprint_of_files(files[::-1], CLASSES) == first
    others = [files[:1], [("a/x", 3, 1), files[1]], [("a/x", 4, 0), files[1]], [("a/z", 3, 0)]]
    digests = {fingerprint_of_files(other, CLASSES) for other in others}
    digests.add(fingerprint_of_files(files, ("a",)))
    assert len(digests | {first}) == 6


def test_fingerprint_of_a_recipe_does_not_know_order() -> None:
    first = fingerprint_of_recipe({"a": 1, "b": (2, 3)})
    assert fingerprint_of_recipe({"b": [2, 3], "a": 1}) == first
    assert fingerprint_of_recipe({"b": [3, 2], "a": 1}) != first
