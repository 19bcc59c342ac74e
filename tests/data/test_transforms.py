import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from stillhouse.data.random import derive_seed, uniform
from stillhouse.data.transforms import (
    CenterCrop,
    Crop,
    Flip,
    Resize,
    ResizedCrop,
    Single,
    Transform,
    all_batched,
    is_random,
    normalise,
    transform_batch,
)

READ = TypeAdapter(Transform)
MOST = 1 - 2**-24  # the largest number that is drawn


def images(n: int = 64, channels: int = 3, height: int = 9, width: int = 7) -> Tensor:
    return torch.randint(1, 256, (n, channels, height, width)).to(torch.uint8)


def zeros(keys: Tensor) -> Tensor:
    return torch.zeros_like(keys)


def cropped(image: Tensor, padding: int, down: float, across: float) -> Tensor:
    """Pixel by pixel: the window starts at a whole number out of 2 padding + 1."""
    top, left = (int(number * (2 * padding + 1)) - padding for number in (down, across))
    channels, height, width = image.shape
    found = torch.zeros_like(image)
    for c, y, x in itertools.product(range(channels), range(height), range(width)):
        if 0 <= y + top < height and 0 <= x + left < width:
            found[c, y, x] = image[c, y + top, x + left]
    return found


def turned(image: Tensor, number: float, probability: float) -> Tensor:
    if number >= probability:
        return image
    return torch.stack([image[..., x] for x in reversed(range(image.shape[-1]))], -1)


# ------------------------------------------------------------------------------- against one by one


@pytest.mark.parametrize("padding", [0, 1, 4])
@pytest.mark.parametrize("view", [0, 3])
def test_crop_is_a_window_of_each_image(padding: int, view: int) -> None:
    given, keys = images(), torch.arange(100, 164)
    views = torch.full_like(keys, view)
    found = transform_batch(given, [Crop(padding)], 5, keys, views)
    down, across = (uniform(5, keys, views, i).tolist() for i in range(2))
    assert found.dtype == torch.uint8
    for i in range(len(given)):
        assert torch.equal(found[i], cropped(given[i], padding, down[i], across[i]))


@pytest.mark.parametrize("probability", [0.0, 0.3, 0.5, 1.0])
def test_flip_turns_each_image(probability: float) -> None:
    given, keys = images(), torch.arange(64)
    found = transform_batch(given, [Flip(probability)], 5, keys, zeros(keys))
    numbers = uniform(5, keys, zeros(keys), 0).tolist()
    for i in range(len(given)):
        assert torch.equal(found[i], turned(given[i], numbers[i], probability))
    share = sum(not torch.equal(a, b) for a, b in zip(found, given, strict=True)) / 64
    assert abs(share - probability) < 0.25


def test_each_transform_draws_its_own_numbers() -> None:
    given, keys = images(20), torch.arange(20)
    chain = [Flip(), Crop(2), Flip(), Crop(1)]
    found = transform_batch(given, chain, 8, keys, zeros(keys))
    draws = [uniform(8, keys, zeros(keys), i).tolist() for i in range(6)]
    for i in range(20):
        wanted = turned(given[i], draws[0][i], 0.5)
        wanted = cropped(wanted, 2, draws[1][i], draws[2][i])
        wanted = turned(wanted, draws[3][i], 0.5)
        wanted = cropped(wanted, 1, draws[4][i], draws[5][i])
        assert torch.equal(found[i], wanted)


@pytest.mark.parametrize("padding", range(20))
def test_the_largest_draw_stays_inside(padding: int) -> None:
    given = images(1)
    for number in (0.0, MOST):
        found = Crop(padding).batch(given, lambda _, number=number: torch.tensor([number]))
        assert torch.equal(found[0], cropped(given[0], padding, number, number))


def test_crops_come_from_everywhere_alike() -> None:
    n = 9000
    marks = torch.zeros(n, 1, 3, 3, dtype=torch.uint8)
    marks[:, :, 1, 1] = 1
    keys = torch.arange(n)
    found = transform_batch(marks, [Crop(1)], 0, keys, zeros(keys))
    shares = found.double().mean((0, 1))  # each of the nine windows leaves the mark elsewhere
    assert (shares - 1 / 9).abs().max() < 4 * (1 / 9 * 8 / 9 / n) ** 0.5


CHAINS = [
    [],
    [Crop(2)],
    [Flip()],
    [Crop(2), Flip()],
    [Flip(0.7), Crop(1), Flip()],
]


@pytest.mark.parametrize("chain", CHAINS, ids=lambda c: "-".join(t.kind for t in c) or "none")
def test_one_image_alone_is_as_in_a_batch(chain: Sequence[Transform]) -> None:
    given, keys, views = images(30), torch.randperm(1000)[:30], torch.randint(0, 5, (30,))
    found = transform_batch(given, chain, 11, keys, views)
    single = Single(chain, 11)
    for i in range(30):
        assert torch.equal(single(given[i], int(keys[i]), int(views[i])), found[i])


def test_a_batch_is_as_its_parts_in_any_order() -> None:
    given, keys, chain = images(), torch.arange(64), [Crop(3), Flip()]
    whole = transform_batch(given, chain, 2, keys, zeros(keys))
    order = torch.randperm(64)
    again = transform_batch(given[order], chain, 2, keys[order], zeros(keys))
    assert torch.equal(again, whole[order])
    part = transform_batch(given[5:9], chain, 2, keys[5:9], zeros(keys[5:9]))
    assert torch.equal(part, whole[5:9])


@pytest.mark.parametrize("change", ["seed", "key", "view"])
def test_seeds_samples_and_views_differ(change: str) -> None:
    given, keys = images(1).expand(64, -1, -1, -1), torch.arange(64)
    first = transform_batch(given, [Crop(), Flip()], 2, keys, zeros(keys))
    options = {"seed": 2, "keys": keys, "views": zeros(keys)}
    options |= {
        "seed": {"seed": 3},
        "key": {"keys": keys + 64},
        "view": {"views": zeros(keys) + 1},
    }[change]
    other = transform_batch(given, [Crop(), Flip()], **options)
    differ = (first != other).flatten(1).any(1).double().mean()
    assert differ > 0.9


def test_the_given_images_are_left_alone() -> None:
    given = images()
    before, keys = given.clone(), torch.arange(64)
    transform_batch(given, [Crop(), Flip()], 0, keys, zeros(keys)).zero_()
    single = Single([Crop(), Flip(1.0)], 0)
    single(given[0], 0, 0).zero_()
    assert torch.equal(given, before)


# ----------------------------------------------------------------------------------- image by image


def test_resized_crop_is_seeded_by_sample_and_view() -> None:
    image, single = images(1, height=20, width=20)[0], Single([ResizedCrop(8)], 3)
    first = single(image, 5, 0)
    assert (first.shape, first.dtype) == ((3, 8, 8), torch.uint8)
    torch.manual_seed(77)
    assert torch.equal(single(image, 5, 0), first)
    assert torch.equal(Single([ResizedCrop(8)], 3)(image, 5, 0), first)
    assert not torch.equal(single(image, 6, 0), first)
    assert not torch.equal(single(image, 5, 1), first)
    assert not torch.equal(Single([ResizedCrop(8)], 4)(image, 5, 0), first)


def test_resized_crop_is_that_of_torchvision() -> None:
    from torchvision.transforms import v2

    image = images(1, height=20, width=20)[0]
    torch.manual_seed(derive_seed(3, 5, 2))
    wanted = v2.RandomResizedCrop(8, scale=(0.4, 0.9), antialias=True)(image)
    assert torch.equal(Single([ResizedCrop(8, (0.4, 0.9))], 3)(image, 5, 2), wanted)


def test_batch_forms_keep_their_draws_among_others() -> None:
    image, keys, views = images(1, height=20, width=20), torch.tensor([4]), torch.tensor([1])
    found = Single([ResizedCrop(12), Crop(2), CenterCrop(10), Flip()], 3)(image[0], 4, 1)
    large = Single([ResizedCrop(12)], 3)(image[0], 4, 1)
    draws = [float(uniform(3, keys, views, i)) for i in range(3)]
    wanted = turned(cropped(large, 2, draws[0], draws[1])[:, 1:11, 1:11], draws[2], 0.5)
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("chain", [[ResizedCrop(8)], [Crop(), Flip()], [Resize(8)]], ids=str)
def test_generators_of_others_are_left_alone(
    chain: Sequence[Transform], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the devices, too, which are seeded by `torch.manual_seed`, and saved by nobody."""
    seeded = []
    for device in (torch.cuda, torch.mps, torch.xpu):
        name = "manual_seed" if device is torch.mps else "manual_seed_all"
        monkeypatch.setattr(device, name, seeded.append)
    image, before = images(1)[0], torch.get_rng_state()
    Single(chain, 0)(image, 0, 0)
    assert torch.equal(torch.get_rng_state(), before)
    assert seeded == []


def test_resize_and_center_crop() -> None:
    image = images(1, height=20, width=10)[0]
    assert Single([Resize(5)], 0)(image, 0, 0).shape == (3, 10, 5)
    assert Single([Resize(5, square=True)], 0)(image, 0, 0).shape == (3, 5, 5)
    assert torch.equal(Single([CenterCrop(4)], 0)(image, 0, 0), image[:, 8:12, 3:7])
    constant = torch.full((3, 20, 10), 77, dtype=torch.uint8)
    assert Single([Resize(5), CenterCrop(5)], 0)(constant, 0, 0).unique().tolist() == [77]


# ---------------------------------------------------------------------------------------- normalise


def test_normalise_is_the_formula() -> None:
    given = torch.arange(256, dtype=torch.uint8).repeat(2 * 3).view(2, 3, 16, 16)
    mean, std = torch.tensor([0.485, 0.25, 0.9]), torch.tensor([0.229, 0.25, 0.01])
    found = normalise(given, mean, std)
    exact = (given.double() / 255 - mean.double().view(3, 1, 1)) / std.double().view(3, 1, 1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=2e-5)
    torch.testing.assert_close(found[:, :2].double(), exact[:, :2], rtol=1e-6, atol=1e-6)
    assert given[0, 0, 0, :3].tolist() == [0, 1, 2]  # not in place


# ---------------------------------------------------------------------------------------- the specs


@pytest.mark.parametrize(
    "given, wanted",
    [
        ({"kind": "crop"}, Crop(4)),
        ({"kind": "crop", "padding": 0}, Crop(0)),
        ({"kind": "flip", "probability": 1}, Flip(1.0)),
        ({"kind": "resized_crop", "size": 96, "scale": [0.2, 1]}, ResizedCrop(96, (0.2, 1.0))),
        ({"kind": "resize", "square": True}, Resize(256, True)),
        ({"kind": "center_crop", "size": 1}, CenterCrop(1)),
    ],
    ids=str,
)
def test_recipes_can_say_them(given: dict[str, Any], wanted: Transform) -> None:
    assert READ.validate_python(given) == wanted


@pytest.mark.parametrize(
    "given, said",
    [
        ({"kind": "crop", "padding": -1}, "`padding` must be non-negative, got -1"),
        ({"kind": "crop", "padding": 1.5}, "valid integer"),
        ({"kind": "crop", "pading": 1}, "pading"),
        (
            {"kind": "flip", "probability": 1.1},
            "`probability` must be in [0, 1], got 1.1",
        ),
        (
            {"kind": "flip", "probability": -0.1},
            "`probability` must be in [0, 1], got -0.1",
        ),
        ({"kind": "flip", "probability": float("nan")}, "`probability` must be in [0, 1], got nan"),
        ({"kind": "resize", "size": 0}, "`size` must be at least 1, got 0"),
        ({"kind": "center_crop", "size": -3}, "`size` must be at least 1, got -3"),
        ({"kind": "resized_crop", "size": 0}, "`size` must be at least 1, got 0"),
        (
            {"kind": "resized_crop", "scale": [0.9, 0.1]},
            "`scale` must be positive and increasing",
        ),
        (
            {"kind": "resized_crop", "scale": [0, 1]},
            "`scale` must be positive and increasing",
        ),
        ({"kind": "flop"}, "'crop', 'flip', 'resized_crop', 'resize', 'center_crop'"),
        ({}, "kind"),
    ],
    ids=str,
)
def test_recipes_cannot_say_nonsense(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as error:
        READ.validate_python(given)
    assert said in str(error.value)


@pytest.mark.parametrize(
    "chain, random, batched",
    [
        ([], False, True),
        ([Crop()], True, True),
        ([Flip(), Crop()], True, True),
        ([Resize()], False, False),
        ([Resize(), CenterCrop()], False, False),
        ([Resize(), Flip()], True, False),
        ([ResizedCrop()], True, False),
    ],
    ids=str,
)
def test_what_chains_are(chain: Sequence[Transform], random: bool, batched: bool) -> None:
    assert is_random(chain) is random
    assert all_batched(chain) is batched
