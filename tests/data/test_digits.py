import time
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from stillhouse.data.embedded import digits
from stillhouse.data.embedded.digits import NUMBERS, make_numbers, make_raw
from stillhouse.data.embedded.glyphs import digit_bank
from stillhouse.data.embedded.scenes import make_scenes
from stillhouse.data.source import Pixels
from stillhouse.errors import UserError

SPLITS = ("train", "val", "test")


@cache
def many() -> Pixels:
    return make_numbers("train", 6000)


# ------------------------------------------------------------------------------------- the sources


def test_the_splits_of_the_handwriting_share_nothing() -> None:
    indices = [digit_bank(split).indices for split in SPLITS]
    assert [len(part) for part in indices] == [1078, 360, 359]
    assert torch.cat(indices).sort().values.tolist() == list(range(1797))


@pytest.mark.parametrize("split", SPLITS)
def test_each_split_has_its_share_of_each_class(split: str) -> None:
    _, labels = load_digits(return_X_y=True)
    share = {"train": 0.6, "val": 0.2, "test": 0.2}[split]
    counts = digit_bank(split).labels.bincount(minlength=10)
    wanted = share * np.bincount(labels)
    assert np.abs(counts.numpy() - wanted).max() <= 1


# --------------------------------------------------------------------------------------------- raw


@pytest.mark.parametrize("split", SPLITS)
def test_raw_digits_are_those_of_scikit_learn(split: str) -> None:
    images, labels = load_digits(return_X_y=True)
    found = make_raw(split)
    places = digit_bank(split).indices.numpy()
    wanted = np.floor(images[places].reshape(-1, 1, 8, 8) * 255 / 16 + 0.5)
    assert found.images.dtype == torch.uint8
    assert found.images.numpy().astype(float).tolist() == wanted.tolist()
    assert found.targets.tolist() == labels[places].tolist()
    assert found.images.max() == 255
    assert found.classes == tuple("0123456789")
    assert found.name == f"digits/raw/{split}"


def test_two_hundred_raw_digits_are_stratified() -> None:
    some, whole = make_raw("train", 200), make_raw("train")
    assert len(some) == 200
    shares = 200 * whole.targets.bincount() / len(whole)
    assert (some.targets.bincount(minlength=10) - shares).abs().max() < 1
    # Each is one of the whole, and none is there twice.
    known = {x.numpy().tobytes(): int(y) for x, y in zip(whole.images, whole.targets, strict=True)}
    found = {x.numpy().tobytes(): int(y) for x, y in zip(some.images, some.targets, strict=True)}
    assert len(found) == 200
    assert found.items() <= known.items()
    assert torch.equal(make_raw("train", 200).images, some.images)


def test_all_raw_digits_by_count_are_all() -> None:
    assert torch.equal(make_raw("val", 360).images, make_raw("val").images)
    assert (
        make_raw("val", 360).fingerprint
        == make_raw("val").fingerprint
        != make_raw("val", 359).fingerprint
    )


@pytest.mark.parametrize("count", [0, -1, 361])
def test_raw_refuses_a_count_that_there_is_none_of(count: int) -> None:
    with pytest.raises(UserError, match=f"^digits/raw has 360 val images, but `count` is {count}$"):
        make_raw("val", count)


MAKERS = {"raw": make_raw, "numbers": lambda split: make_numbers(split, 1), "scenes": make_scenes}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_an_unknown_split_is_refused(make: object) -> None:
    with pytest.raises(UserError) as error:
        make("tets") if make is not make_scenes else make_scenes("tets", 1)
    assert str(error.value) == (
        "digits has no split 'tets', only train, val, test; did you mean 'test'?"
    )


# ----------------------------------------------------------------------------------------- numbers


def test_numbers_are_what_they_should_be() -> None:
    data = many()
    assert data.images.shape == (6000, 1, 16, 32)
    assert data.images.dtype == torch.uint8
    assert data.targets.shape == (6000,)
    assert data.targets.dtype == torch.int64
    assert data.classes == NUMBERS == tuple(f"{i:02d}" for i in range(100))
    assert data.name == "digits/numbers/train"
    counts = data.targets.bincount(minlength=100)
    assert counts.shape == (100,)
    # 60 of each are expected, with a standard deviation of 7.7.
    assert counts.min() > 25
    assert counts.max() < 100


def test_numbers_have_these_statistics() -> None:
    bright = many().images.double() / 255
    assert bright.mean() == pytest.approx(0.2025, abs=0.01)
    assert bright.std() == pytest.approx(0.2010, abs=0.01)
    assert bright.min() == 0
    assert bright.max() == 1
    means = bright.mean(0)[0]
    # Two columns of ink, at 27 % and 73 % of the width, with less in between and at the edges.
    columns = means.mean(0)
    for slot in (range(6, 12), range(21, 27)):
        assert columns[list(slot)].mean() > 1.3 * columns[15:17].mean()
        assert columns[list(slot)].mean() > 1.3 * columns[[0, 31]].mean()


def left(images: Tensor) -> Tensor:
    return images[:, 0, :, :16].flatten(1).double()


def right(images: Tensor) -> Tensor:
    return images[:, 0, :, 16:].flatten(1).double()


def nearest(train: Tensor, labels: Tensor, test: Tensor) -> Tensor:
    """Class of the most alike image, whatever its contrast: (N, D), (N,), (M, D) -> (M,)."""
    train, test = (x - x.mean(1, keepdim=True) for x in (train, test))
    train, test = (torch.nn.functional.normalize(x) for x in (train, test))
    return labels[(test @ train.T).argmax(1)]


@pytest.mark.parametrize("half, place", [(left, 0), (right, 1)], ids=["tens", "units"])
def test_the_digits_of_the_label_can_be_read(half: object, place: int) -> None:
    """Tens on the left, units on the right: chance is 10 %, and the other half tells nothing."""
    test = make_numbers("test", 1000)
    labels = [torch.stack([y // 10, y % 10]) for y in (many().targets, test.targets)]
    found = nearest(half(many().images), labels[0][place], half(test.images))
    right_ones = (found == labels[1][place]).double().mean()
    assert right_ones > 0.4
    other = nearest(half(many().images), labels[0][1 - place], half(test.images))
    assert abs((other == labels[1][1 - place]).double().mean() - 0.1) < 0.04


@pytest.mark.parametrize("slot", [0, 1])
def test_the_mean_image_of_a_digit_looks_like_it(slot: int) -> None:
    """The average over all poses agrees best with the average handwriting of the same digit."""
    data, source = many(), digit_bank("train")
    drawn, glyphs = [], []
    for digit in range(10):
        tens = data.targets // 10 if slot == 0 else data.targets % 10
        half = data.images[tens == digit][:, :, :, 16 * slot : 16 * slot + 16].double().mean(0)
        # A glyph is 13 x 12 pixels large on average, around 8.6 pixels of the left half.
        drawn.append(half[0].flatten())
        glyph = source.images[source.labels == digit].double().mean(0)
        size = (13, 12)
        large = torch.nn.functional.interpolate(glyph[None, None], size, mode="bilinear")[0, 0]
        canvas = torch.zeros(16, 16, dtype=torch.double)
        start = 3 if slot == 0 else 1
        canvas[1:14, start : start + 12] = large
        glyphs.append(canvas.flatten())
    drawn, glyphs = torch.stack(drawn), torch.stack(glyphs)
    # What sets the digits apart, without what all of them share.
    drawn, glyphs = drawn - drawn.mean(0), glyphs - glyphs.mean(0)
    likeness = torch.nn.functional.normalize(drawn) @ torch.nn.functional.normalize(glyphs).T
    assert likeness.argmax(1).tolist() == list(range(10))
    assert likeness.diagonal().min() > 0.5


def test_numbers_are_the_same_each_time() -> None:
    first, again = make_numbers("train", 700), make_numbers("train", 700)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.targets, again.targets)
    assert first.fingerprint == again.fingerprint


@pytest.mark.parametrize("count", [1, 499, 500, 501, 1200])
def test_a_short_set_is_the_beginning_of_a_long_one(count: int) -> None:
    short = make_numbers("train", count)
    assert len(short) == count
    assert torch.equal(short.images, many().images[:count])
    assert torch.equal(short.targets, many().targets[:count])
    assert short.fingerprint != many().fingerprint


def test_threads_change_nothing() -> None:
    first = make_numbers("val", 100)
    torch.set_num_threads(2)
    try:
        second = make_numbers("val", 100)
    finally:
        torch.set_num_threads(1)
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.targets, second.targets)


def test_generators_of_others_change_nothing_and_are_left_alone() -> None:
    first = make_numbers("val", 10)
    torch.manual_seed(5)
    np.random.seed(5)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()
    assert torch.equal(make_numbers("val", 10).images, first.images)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]


@pytest.mark.parametrize(
    "other",
    [
        {"split": "train"},
        {"split": "test"},
        {"seed": 1},
        {"height": 17},
        {"width": 33},
    ],
    ids=str,
)
def test_every_option_makes_other_numbers(other: dict[str, object]) -> None:
    options = {"split": "val", "count": 50}
    first, second = make_numbers(**options), make_numbers(**{**options, **other})
    assert first.fingerprint != second.fingerprint
    if "split" in other or "seed" in other:
        assert not torch.equal(first.targets, second.targets)
    same = first.images.shape == second.images.shape
    assert not (same and torch.equal(first.images, second.images))


def test_numbers_of_another_size() -> None:
    large = make_numbers("train", 400, height=32, width=48)
    assert large.images.shape == (400, 1, 32, 48)
    assert (large.images[:, 0, 8:24].double().mean() / 255) > 0.2  # the ink grows with the canvas


def test_numbers_out_of_the_cache_are_the_same() -> None:
    fresh = make_numbers("test", 321, seed=9)
    for _ in range(2):  # made and kept, then read
        kept = make_numbers("test", 321, seed=9, cache=True)
        assert torch.equal(kept.images, fresh.images)
        assert torch.equal(kept.targets, fresh.targets)
        assert (kept.fingerprint, kept.name, kept.classes) == (
            fresh.fingerprint,
            fresh.name,
            NUMBERS,
        )


def test_the_cache_saves_the_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    first = make_numbers("test", 123, seed=8, cache=True)
    monkeypatch.setattr(digits, "_draw", None)
    assert torch.equal(make_numbers("test", 123, seed=8, cache=True).images, first.images)


@pytest.mark.parametrize("option", [{"count": 0}, {"count": -5}, {"height": 7}, {"width": 15}])
def test_numbers_refuse_too_little(option: dict[str, int]) -> None:
    with pytest.raises(UserError) as error:
        make_numbers("train", **{"count": 1, **option})
    assert str(error.value) == (
        "digits/numbers needs `count` of at least 1, `height` of 8 and `width` of 16"
    )


def test_numbers_are_made_in_seconds() -> None:
    start = time.process_time()
    make_numbers("train", 6000, seed=77)
    assert time.process_time() - start < 10  # 1.5 s on one quiet core
