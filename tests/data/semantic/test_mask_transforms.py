"""Masks that follow their image through every transform, without a shift."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from stillhouse.batches import IGNORE
from stillhouse.data.targets import resize_mask
from stillhouse.data.transforms import (
    CenterCrop,
    ColorJitter,
    Crop,
    Flip,
    RandomCrop,
    RandomScale,
    Resize,
    ResizedCrop,
    Single,
    Transform,
)
from stillhouse.spec import members

READ: TypeAdapter[Transform] = TypeAdapter(Transform)


def ramp(height: int, width: int) -> tuple[Tensor, Tensor]:
    """An image that brightens to the right and downwards, and a mask that is its red channel."""
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    across = (2 * columns).expand(height, width).to(torch.uint8)
    down = (2 * rows).expand(height, width).to(torch.uint8)
    return torch.stack([across, down, across]), across.clone()


# -------------------------------------------------------------------------------------- alignment

EXACT: list[Sequence[Transform]] = [
    [Flip(1.0)],
    [Crop(5)],
    [CenterCrop(31)],
    [RandomCrop(24)],
    [RandomCrop((40, 20)), Flip()],
    [Flip(), RandomCrop(70, grey=0)],
]


@pytest.mark.parametrize("chain", EXACT, ids=str)
def test_a_mask_that_is_a_channel_stays_that_channel(chain: Sequence[Transform]) -> None:
    image, mask = ramp(50, 60)
    for key in range(20):
        shown, found = Single(chain, 3).sample(image, mask, key, 0)
        assert isinstance(found, Tensor) and found.dtype == torch.uint8
        assert found.shape == shown.shape[1:]
        inside = found != IGNORE
        assert torch.equal(found[inside], shown[0][inside])
        assert inside.any()


SCALED: list[Sequence[Transform]] = [
    [Resize(19)],
    [Resize(77)],
    [Resize(101, square=True)],
    [RandomScale(0.3, 2.0, 0.0)],
    [RandomScale()],
    [ResizedCrop(25)],
    [ResizedCrop(90, scale=(0.2, 0.9))],
    [RandomScale(0.6, 0.9), Flip(), RandomCrop((30, 44))],
]


@pytest.mark.parametrize("chain", SCALED, ids=str)
def test_a_resized_mask_is_not_shifted_against_its_image(chain: Sequence[Transform]) -> None:
    """On a ramp, the mean difference of mask and image is the shift."""
    image, mask = ramp(50, 60)
    shifts = []
    for key in range(20):
        shown, found = Single(chain, 3).sample(image, mask, key, 0)
        assert isinstance(found, Tensor)
        inside = found != IGNORE
        inside[:2], inside[-2:] = False, False
        inside[:, :2], inside[:, -2:] = False, False
        shifts.append(float((found.double() - shown[0].double())[inside].mean()) / 2)
    # in pixels of the original; half a pixel more or less would be that of another convention
    assert max(map(abs, shifts)) < 0.3, shifts
    assert abs(sum(shifts)) / len(shifts) < 0.12, shifts


@pytest.mark.parametrize("size", [(3, 4), (7, 13), (6, 8), (20, 5), (1, 1)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool], ids=str)
def test_a_pixel_is_that_of_the_nearest_centre(size: tuple[int, int], dtype: torch.dtype) -> None:
    mask = torch.randint(0, 250, (6, 9)).to(dtype)
    found = resize_mask(mask, *size)
    assert found.shape == size and found.dtype == dtype
    for row in range(size[0]):
        for column in range(size[1]):
            y, x = (row + 0.5) * 6 / size[0], (column + 0.5) * 9 / size[1]
            assert found[row, column] == mask[int(y), int(x)]
    other = torch.nn.functional.interpolate(mask[None, None].double(), size, mode="nearest-exact")
    assert torch.equal(found, other[0, 0].to(dtype))


def test_a_mask_of_the_same_size_does_not_change() -> None:
    mask = torch.randint(0, 9, (2, 6, 9))
    assert torch.equal(resize_mask(mask, 6, 9), mask)


# ----------------------------------------------------------------------------------- random_scale


def test_the_factors_of_random_scale_are_its_steps() -> None:
    image = torch.zeros(3, 100, 200, dtype=torch.uint8)
    seen = {Single([RandomScale()], 1)(image, key, 0).shape[1:] for key in range(400)}
    assert seen == {(10 * tenths, 20 * tenths) for tenths in range(5, 21)}


@pytest.mark.parametrize(
    ("low", "high", "step", "factors"),
    [(1.0, 1.0, 0.1, {1.0}), (0.5, 1.0, 0.25, {0.5, 0.75, 1.0}), (0.5, 1.0, 0.4, {0.5, 0.9})],
)
def test_a_step_that_does_not_fit_ends_before_the_largest(
    low: float, high: float, step: float, factors: set[float]
) -> None:
    scale = RandomScale(low, high, step)
    assert {round(scale.draw(), 9) for _ in range(100)} == factors


def test_without_steps_every_factor_can_be_drawn() -> None:
    drawn = [RandomScale(0.5, 2.0, 0.0).draw() for _ in range(500)]
    assert 0.5 <= min(drawn) < 0.55 and 1.95 < max(drawn) <= 2.0
    assert len(set(drawn)) > 490


def test_an_image_never_vanishes() -> None:
    image, mask = ramp(3, 90)
    shown, found = Single([RandomScale(0.1, 0.1)], 1).sample(image, mask, 0, 0)
    assert isinstance(found, Tensor)
    assert shown.shape == (3, 1, 9) and found.shape == (1, 9)


# ------------------------------------------------------------------------------------ random_crop


def test_every_place_of_a_crop_is_drawn() -> None:
    image, mask = ramp(12, 9)
    seen = set()
    for key in range(300):
        shown, found = Single([RandomCrop((10, 8))], 1).sample(image, mask, key, 0)
        assert shown.shape == (3, 10, 8) and isinstance(found, Tensor)
        seen.add((int(shown[1, 0, 0]) // 2, int(shown[0, 0, 0]) // 2))
    assert seen == {(y, x) for y in range(3) for x in range(2)}


@pytest.mark.parametrize("grey", [0, 114, 255])
def test_a_smaller_image_is_padded_at_the_right_and_bottom(grey: int) -> None:
    image, mask = ramp(6, 30)
    for key in range(10):
        shown, found = Single([RandomCrop((8, 20), grey)], 1).sample(image, mask, key, 0)
        assert shown.shape == (3, 8, 20) and isinstance(found, Tensor)
        assert (shown[:, 6:] == grey).all() and (found[6:] == IGNORE).all()
        assert torch.equal(found[:6], shown[0, :6]) and (found[:6] != IGNORE).all()


def test_the_mask_does_not_change_the_image() -> None:
    image, mask = ramp(40, 50)
    chain = [RandomScale(), ColorJitter(), RandomCrop(32), Flip()]
    for key in range(5):
        with_mask = Single(chain, 7).sample(image, mask, key, 1)[0]
        assert torch.equal(with_mask, Single(chain, 7)(image, key, 1))


# ----------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kind": "random_scale", "low": 0}, "`low` must be positive, got 0"),
        ({"kind": "random_scale", "low": 1, "high": 0.5}, "`high` must be at least 1.0, got 0.5"),
        ({"kind": "random_scale", "step": -0.1}, "`step` must be non-negative, got -0.1"),
        ({"kind": "random_crop", "size": 0}, "`size` must be at least 1, got 0"),
        ({"kind": "random_crop", "size": [4, 0]}, "`size` must be at least 1, got (4, 0)"),
        ({"kind": "random_crop", "grey": 256}, "`grey` must be in [0, 255], got 256"),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError) as error:
        READ.validate_python(given)
    assert said in str(error.value)


def test_recipes_can_name_them() -> None:
    assert READ.validate_python({"kind": "random_scale"}) == RandomScale(0.5, 2.0, 0.1)
    crop = READ.validate_python({"kind": "random_crop", "size": [512, 1024]})
    assert isinstance(crop, RandomCrop) and crop.sides == (512, 1024)
    assert {RandomCrop, RandomScale} <= set(members(Transform))
