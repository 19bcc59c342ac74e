import math
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from stillhouse.data.transforms import RandAugment, Single, Transform
from stillhouse.errors import UserError

READ = TypeAdapter(Transform)


def picture(channels: int = 3, height: int = 16, width: int = 32) -> Tensor:
    return torch.randint(0, 200, (channels, height, width)).to(torch.uint8)


def sheared(image: Tensor, x: float, y: float) -> Tensor:
    shear = [math.degrees(math.atan(value)) for value in (x, y)]
    return F.affine(image, 0.0, [0, 0], 1.0, shear, center=[0, 0])


def operations(image: Tensor, share: float) -> dict[str, list[Tensor]]:
    """The 14 operations of the paper at a share of their range, either way where there are two."""
    height, width = image.shape[-2:]
    found = {
        "identity": [image],
        "autocontrast": [F.autocontrast(image)],
        "equalize": [F.equalize(image)],
        "posterize": [F.posterize(image, 8 - round(4 * share))],
        "solarize": [F.solarize(image, 255 * (1 - share))],
    }
    for sign in (1, -1):
        x, y = (int(sign * share * 150 / 331 * side) for side in (width, height))
        factor = 1 + sign * 0.9 * share
        both = {
            "shear x": sheared(image, sign * 0.3 * share, 0),
            "shear y": sheared(image, 0, sign * 0.3 * share),
            "translate x": F.affine(image, 0.0, [x, 0], 1.0, [0.0, 0.0]),
            "translate y": F.affine(image, 0.0, [0, y], 1.0, [0.0, 0.0]),
            "rotate": F.rotate(image, sign * 30 * share),
            "brightness": F.adjust_brightness(image, factor),
            "colour": F.adjust_saturation(image, factor),
            "contrast": F.adjust_contrast(image, factor),
            "sharpness": F.adjust_sharpness(image, factor),
        }
        for name, changed in both.items():
            found.setdefault(name, []).append(changed)
    return found


def near(a: Tensor, b: Tensor) -> bool:
    """The same but for a pixel in hundred, which rounding sends elsewhere, and for one step."""
    return bool(((a.int() - b.int()).abs() <= 1).double().mean() > 0.99)


@pytest.mark.parametrize("magnitude", [3.0, 9.0, 10.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_one_operation_is_one_of_the_papers(magnitude: float, channels: int) -> None:
    image = picture(channels)
    single = Single([RandAugment(1, magnitude, 0.0)], 3)
    wanted, met = operations(image, magnitude / 10), set()
    for key in range(250):
        found = single(image, key, 0)
        assert (found.shape, found.dtype) == (image.shape, torch.uint8)
        names = [n for n, candidates in wanted.items() if any(near(found, c) for c in candidates)]
        assert names
        met |= set(names)
    assert met == wanted.keys()


def test_several_come_one_after_the_other() -> None:
    image = picture()
    first = operations(image, 0.5)
    single = Single([RandAugment(2, 5.0, 0.0)], 3)
    for key in range(15):
        found = single(image, key, 0)
        assert any(
            near(found, second)
            for one in first.values()
            for before in one
            for after in operations(before, 0.5).values()
            for second in after
        )


def bins(how: RandAugment, count: int = 20_000) -> Tensor:
    return torch.tensor([how.bin() for _ in range(count)], dtype=torch.double)


@pytest.mark.parametrize("magnitude", range(11))
def test_ten_magnitudes_are_thirty_bins(magnitude: int) -> None:
    assert bins(RandAugment(2, magnitude, 0.0), 3).tolist() == [3 * magnitude] * 3


def test_magnitudes_deviate_about_theirs() -> None:
    found = bins(RandAugment(2, 5.0, 0.5))
    assert abs(found.mean() - 15) < 0.05
    assert abs(found.std() - (1.5**2 + 1 / 12) ** 0.5) < 0.05  # and what rounding adds
    found = bins(RandAugment())
    assert int(found.max()) == 30 and (found == 30).double().mean() > 0.04  # cut at the end
    assert bins(RandAugment(2, 0.0), 500).min() == 0


def test_uniform_magnitudes_are_all_alike() -> None:
    counts = bins(RandAugment(uniform=True)).long().bincount()
    assert len(counts) == 31
    assert (counts / 20_000 - 1 / 31).abs().max() < 4 * (1 / 31 / 20_000) ** 0.5


@pytest.mark.parametrize("channels", [2, 4])
def test_images_of_other_channels_are_refused(channels: int) -> None:
    with pytest.raises(UserError) as error:
        Single([RandAugment()], 0)(picture(channels), 0, 0)
    assert str(error.value) == (
        f"rand_augment needs images of 1 or 3 channels, but these have {channels}; "
        "leave rand_augment out of data.transforms and data.strong"
    )


def test_the_image_of_the_source_stays() -> None:
    image, single = picture(), Single([RandAugment(3)], 0)
    before = image.clone()
    for key in range(100):
        single(image, key, 0)
    assert torch.equal(image, before)


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (8, 8)], ids=str)
def test_images_may_be_small(size: tuple[int, int]) -> None:
    single = Single([RandAugment(uniform=True)], 0)
    for key in range(100):
        assert single(picture(1, *size), key, 0).shape == (1, *size)


def test_recipes_can_say_it() -> None:
    assert READ.validate_python({"kind": "rand_augment"}) == RandAugment(2, 9.0, 0.5, False)
    given = {"kind": "rand_augment", "ops": 3, "uniform": True}
    assert READ.validate_python(given) == RandAugment(3, uniform=True)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"ops": 0}, "`ops` must be at least 1, got 0"),
        ({"magnitude": 11}, "`magnitude` must be in [0, 10], got 11"),
        ({"magnitude": -1}, "`magnitude` must be in [0, 10], got -1"),
        ({"deviation": -0.5}, "`deviation` must be non-negative, got -0.5"),
    ],
    ids=str,
)
def test_recipes_cannot_say_nonsense(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as error:
        READ.validate_python({"kind": "rand_augment", **options})
    assert said in str(error.value)
