import itertools
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from stillhouse.data.random import uniform
from stillhouse.data.transforms import Cutout, Erasing, Single, Transform, transform_batch

READ = TypeAdapter(Transform)


def images(n: int, channels: int = 3, height: int = 11, width: int = 8) -> Tensor:
    return torch.randint(1, 256, (n, channels, height, width)).to(torch.uint8)


def cut(image: Tensor, size: float, side: float, down: float, across: float) -> Tensor:
    """Pixel by pixel: black where the middle of the pixel lies in the square."""
    _, height, width = image.shape
    found, half = image.clone(), side * size * min(height, width) / 2
    for y, x in itertools.product(range(height), range(width)):
        if abs(y + 0.5 - down * height) < half and abs(x + 0.5 - across * width) < half:
            found[:, y, x] = 0
    return found


def box(covered: Tensor) -> tuple[int, int]:
    """Height and width of what is covered, which must be one whole box: (H, W)."""
    rows, columns = covered.any(1).nonzero().flatten(), covered.any(0).nonzero().flatten()
    if not len(rows):
        return 0, 0
    y, x = (slice(int(places[0]), int(places[-1]) + 1) for places in (rows, columns))
    assert covered[y, x].all() and covered.sum() == covered[y, x].numel()
    return len(rows), len(columns)


# ------------------------------------------------------------------------------------------- cutout


@pytest.mark.parametrize("size", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_cutout_blackens_a_square_of_each_image(size: float, channels: int) -> None:
    given, keys = images(60, channels), torch.arange(50, 110)
    views = torch.full_like(keys, 2)
    found = transform_batch(given, [Cutout(size)], 5, keys, views)
    draws = [uniform(5, keys, views, i).tolist() for i in range(3)]
    assert found.dtype == torch.uint8
    for i in range(60):
        assert torch.equal(found[i], cut(given[i], size, *(row[i] for row in draws)))


def test_squares_are_of_every_size_up_to_half_a_side_and_lie_anywhere() -> None:
    given, keys = images(3000, 1, 20, 30), torch.arange(3000)
    covered = transform_batch(given, [Cutout()], 0, keys, torch.zeros_like(keys))[:, 0] == 0
    sizes = [box(one) for one in covered]
    assert {max(size) for size in sizes} == set(range(11))  # half of the shorter side
    inside = [(h, w) for (h, w), one in zip(sizes, covered, strict=True) if not on_border(one)]
    assert all(abs(h - w) <= 1 for h, w in inside)
    assert any(abs(h - w) > 3 for h, w in sizes)  # cut at the border
    assert covered.any(0).all()  # corners, too
    shares = covered[:, 5:15, 8:22].double().mean(0)  # alike, where no border is near
    assert shares.std() < 0.01


def on_border(covered: Tensor) -> bool:
    edges = (covered[0], covered[-1], covered[:, 0], covered[:, -1])
    return any(bool(edge.any()) for edge in edges)


def test_a_square_may_have_a_colour_of_its_own() -> None:
    given, keys = images(40, 3), torch.arange(40)
    views = torch.zeros_like(keys)
    black = transform_batch(given, [Cutout()], 5, keys, views)
    found = transform_batch(given, [Cutout(colour="random"), Cutout(0)], 5, keys, views)
    shades = torch.stack([(uniform(5, keys, views, 3 + i) * 256).byte() for i in range(3)], 1)
    for i in range(40):
        covered = (black[i] != given[i]).any(0)  # the same square, up to pixels that were black
        assert torch.equal(found[i][:, ~covered], given[i][:, ~covered]) or not covered.any()
        expected = shades[i][:, None].expand(3, int(covered.sum()))
        assert torch.equal(found[i][:, covered], expected)
    assert len({tuple(row) for row in shades.tolist()}) > 30


def test_a_square_may_always_be_as_large() -> None:
    given, keys = images(200, 1, 20, 20), torch.arange(200)
    given = given.clamp(min=1)
    covered = transform_batch(given, [Cutout(0.5, fixed=True)], 0, keys, 0 * keys)[:, 0] == 0
    inside = [box(one) for one in covered if not on_border(one)]
    assert inside and set(inside) <= {(10, 10), (10, 9), (9, 10), (9, 9), (10, 11), (11, 10)}


def test_no_size_is_no_square() -> None:
    given, keys = images(50), torch.arange(50)
    assert torch.equal(transform_batch(given, [Cutout(0)], 1, keys, torch.zeros_like(keys)), given)


# ------------------------------------------------------------------------------------------ erasing


def erased(how: Erasing, image: Tensor, count: int) -> list[Tensor]:
    single = Single([how], 3)
    return [single(image, key, 0) for key in range(count)]


def test_boxes_are_as_large_and_as_long_as_they_may_be() -> None:
    white = torch.full((3, 40, 30), 255, dtype=torch.uint8)
    shares, ratios = [], []
    for found in erased(Erasing(1.0, mode="black"), white, 400):
        assert found.shape == white.shape and found.unique().tolist() in ([0, 255], [255])
        height, width = box(found[0] == 0)
        assert (found == found[0]).all()  # the same place in all channels
        assert 0 < height < 40 and 0 < width < 30
        assert (height + 0.5) * (width + 0.5) >= 0.02 * 1200
        assert (height - 0.5) * (width - 0.5) <= 1200 / 3
        assert (height + 0.5) / (width - 0.5) >= 0.3 and (height - 0.5) / (width + 0.5) <= 3.3
        shares.append(height * width / 1200)
        ratios.append(height / width)
    assert min(shares) < 0.03 and max(shares) > 0.3
    assert abs(sum(shares) / 400 - (0.02 + 1 / 3) / 2) < 0.03
    assert min(ratios) < 0.35 and max(ratios) > 2.8
    assert 0.35 < sum(ratio < 1 for ratio in ratios) / 400 < 0.65  # lying as often as standing


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_in_the_box_are_random_bytes_and_the_rest_stays(channels: int) -> None:
    image, inside = images(1, channels, 40, 30)[0], []
    for found in erased(Erasing(1.0, area=(0.2, 0.3)), image, 50):
        assert found.dtype == torch.uint8
        changed = (found != image).any(0)
        whole = changed.any(1)[:, None] & changed.any(0)
        height, width = box(whole)
        assert 0.18 < height * width / 1200 < 0.32
        assert changed.sum() > 0.95 * whole.sum()  # but for those that drew what they were
        inside.append(found[:, whole].flatten())
    numbers = torch.cat(inside).double()
    assert {int(numbers.min()), int(numbers.max())} == {0, 255}
    assert abs(numbers.mean() - 127.5) < 3 and abs(numbers.std() - 73.9) < 3


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_boxes_come_with_their_probability(probability: float) -> None:
    image = images(1, 3, 16, 16)[0]
    found = erased(Erasing(probability, mode="black"), image, 600)
    share = sum(not torch.equal(one, image) for one in found) / 600
    assert abs(share - probability) <= 4 * (probability * (1 - probability) / 600) ** 0.5


def test_a_box_that_never_fits_is_left_out() -> None:
    image = images(1, 3, 1, 9)[0]
    assert all(torch.equal(found, image) for found in erased(Erasing(1.0), image, 20))


def test_the_image_of_the_source_stays() -> None:
    image = images(1)[0]
    before = image.clone()
    erased(Erasing(1.0), image, 20)
    assert torch.equal(image, before)


# ---------------------------------------------------------------------------------------- the specs


@pytest.mark.parametrize(
    "given, wanted",
    [
        ({"kind": "cutout"}, Cutout(0.5)),
        ({"kind": "erasing"}, Erasing(0.25, (0.02, 1 / 3), (0.3, 3.3), "pixel")),
        (
            {"kind": "erasing", "mode": "black", "area": [0.1, 1]},
            Erasing(0.25, (0.1, 1.0), mode="black"),
        ),
    ],
    ids=str,
)
def test_recipes_can_say_them(given: dict[str, Any], wanted: Transform) -> None:
    assert READ.validate_python(given) == wanted


@pytest.mark.parametrize(
    "given, said",
    [
        (
            {"kind": "cutout", "size": 1.5},
            "`size` must be in [0, 1]",
        ),
        (
            {"kind": "cutout", "size": -1},
            "`size` must be in [0, 1]",
        ),
        ({"kind": "erasing", "probability": 2}, "`probability` must be in [0, 1], got 2"),
        ({"kind": "erasing", "area": [0.5, 0.1]}, "`area` must be increasing in (0, 1], got (0.5"),
        (
            {"kind": "erasing", "area": [0.5, 1.1]},
            "`area` must be increasing in (0, 1], got (0.5",
        ),
        ({"kind": "erasing", "ratio": [0, 1]}, "`ratio` must be positive and increasing"),
        ({"kind": "erasing", "mode": "grey"}, "'pixel' or 'black'"),
    ],
    ids=str,
)
def test_recipes_cannot_say_nonsense(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as error:
        READ.validate_python(given)
    assert said in str(error.value)
