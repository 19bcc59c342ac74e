from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor
from torchvision.transforms import v2

from stillhouse.data.random import derive_seed
from stillhouse.data.transforms import ColorJitter, Single, Transform
from stillhouse.errors import UserError

READ = TypeAdapter(Transform)
OFF = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}


def picture(channels: int = 3) -> Tensor:
    return torch.randint(30, 200, (channels, 12, 10)).to(torch.uint8)


def jittered(image: Tensor, count: int = 60, **options: float) -> list[Tensor]:
    single = Single([ColorJitter(**{**OFF, **options})], 3)
    return [single(image, key, 0) for key in range(count)]


def test_it_is_that_of_torchvision() -> None:
    image = picture()
    torch.manual_seed(derive_seed(3, 5, 2))
    wanted = v2.ColorJitter(0.1, 0.2, 0.3, 0.4)(image)
    assert torch.equal(Single([ColorJitter(0.1, 0.2, 0.3, 0.4)], 3)(image, 5, 2), wanted)
    assert ColorJitter() == ColorJitter(0.4, 0.4, 0.4, 0.0)


@pytest.mark.parametrize("channels", [1, 3])
def test_brightness_is_a_factor_within_its_range(channels: int) -> None:
    even = torch.full((channels, 4, 4), 100, dtype=torch.uint8)
    values = [found.unique().tolist() for found in jittered(even, 200, brightness=0.4)]
    assert all(len(value) == 1 for value in values)
    found = [value[0] for value in values]
    assert 59 <= min(found) < 65 and 135 < max(found) <= 140


@pytest.mark.parametrize("channels", [1, 3])
def test_contrast_stretches_about_the_mean(channels: int) -> None:
    image = picture(channels)
    weights = torch.tensor([0.2989, 0.587, 0.114] if channels == 3 else [1.0])
    middle = (image * weights[:, None, None]).sum(0).floor().mean()
    changed = 0
    for found in jittered(image, contrast=0.4):
        inside = (found > 0) & (found < 255)
        before, after = (x.double()[inside] - middle for x in (image, found))
        factor = (before * after).sum() / before.square().sum()
        assert 0.58 <= factor <= 1.42
        assert (after - factor * before).abs().max() < 1.5
        changed += abs(factor - 1) > 0.1
    assert changed > 20


@pytest.mark.parametrize("options", [{"saturation": 0.9}, {"hue": 0.5}, {}], ids=str)
def test_grey_images_have_no_saturation_and_no_hue(options: dict[str, float]) -> None:
    image = picture(1)
    assert all(torch.equal(found, image) for found in jittered(image, **options))


def test_nothing_asked_is_nothing_done() -> None:
    image = picture()
    assert all(torch.equal(found, image) for found in jittered(image))


def test_a_turned_hue_keeps_how_bright_and_how_grey_a_pixel_is() -> None:
    image = picture()
    found = jittered(image, hue=0.5)
    for one in found:
        for extreme in (torch.amax, torch.amin):
            gap = extreme(one.int(), 0) - extreme(image.int(), 0)
            assert gap.abs().max() <= 2
    assert sum(not torch.equal(one, image) for one in found) > 50


def test_saturation_keeps_how_bright_a_pixel_is() -> None:
    image, weights = picture(), torch.tensor([0.299, 0.587, 0.114], dtype=torch.double)
    for one in jittered(image, saturation=0.3):
        inside = ((one > 0) & (one < 255)).all(0)
        before, after = (torch.einsum("c,chw->hw", weights, x.double()) for x in (image, one))
        assert (before - after)[inside].abs().max() < 1.7


@pytest.mark.parametrize("channels", [2, 4])
def test_images_of_other_channels_are_refused(channels: int) -> None:
    with pytest.raises(UserError) as error:
        jittered(picture(channels))
    assert str(error.value) == (
        f"color_jitter needs images of 1 or 3 channels, but these have {channels}; "
        "leave color_jitter out of data.transforms and data.strong"
    )


@pytest.mark.parametrize(
    "options, said",
    [
        ({"brightness": -0.1}, "`brightness` must be non-negative, got -0.1"),
        ({"contrast": float("nan")}, "`contrast` must be non-negative, got nan"),
        ({"hue": 0.6}, "`hue` must be in [0, 0.5], got 0.6"),
    ],
    ids=str,
)
def test_recipes_cannot_say_nonsense(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as error:
        READ.validate_python({"kind": "color_jitter", **options})
    assert said in str(error.value)
