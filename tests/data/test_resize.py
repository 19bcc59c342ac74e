"""Sides of resized images: the shorter and the longest, one of several sizes, or any in a range."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from stillhouse.batches import Objects
from stillhouse.data.transforms import Resize, Single, Transform, is_random

READ = TypeAdapter(Transform)
SHAPES = [(480, 640), (640, 480), (427, 640), (640, 320), (100, 900), (7, 7), (333, 500)]


def image(height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (3, height, width)).to(torch.uint8)


def sides(height: int, width: int, size: int, longest: int | None) -> tuple[int, int]:
    """The sides by fractions: the shorter is `size`, unless the longer is too long then."""
    long = Fraction(max(height, width))
    scale = Fraction(size, min(height, width))
    if longest is not None and int(long * scale) > longest:
        scale = Fraction(longest, max(height, width))
    return int(height * scale), int(width * scale)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("size", "longest"), [(80, None), (80, 133), (80, 80), (8, 10)])
def test_the_shorter_side_is_as_asked_and_the_longer_no_longer(
    shape: tuple[int, int], size: int, longest: int | None
) -> None:
    found = Single([Resize(size, longest=longest)], 0)(image(*shape), 0, 0)
    assert found.shape[1:] == sides(*shape, size, longest)
    assert min(found.shape[1:]) <= size and max(found.shape[1:]) <= (longest or 10**6)


def test_coco_at_its_usual_sizes() -> None:
    """800 x 1333: landscape, portrait, and a panorama whose longer side decides."""
    resize = Resize(800, longest=1333)
    assert resize.sides(480, 640) == [800, 1066]
    assert resize.sides(640, 480) == [1066, 800]
    assert resize.sides(320, 640) == [666, 1333]
    assert resize.sides(1, 5000) == [1, 1333]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("square", [False, True])
def test_pixels_are_those_of_torchvision(interpolation: Any, square: bool) -> None:
    from torchvision.transforms import v2

    given = image(37, 53)
    size = [20, 20] if square else [20]
    wanted = v2.Resize(size, v2.InterpolationMode(interpolation), antialias=True)(given)
    found = Single([Resize(20, square, interpolation)], 0)(given, 0, 0)
    assert torch.equal(found, wanted)


def test_boxes_are_scaled_by_what_each_side_became() -> None:
    boxes = torch.tensor([[3.0, 5.0, 90.0, 20.0], [0.0, 0.0, 100.0, 33.0]])
    index = torch.zeros(2, dtype=torch.int64)
    for resize in (Resize(20), Resize(20, longest=41), Resize((17, 19, 40), longest=50)):
        shown, target = Single([resize], 3).sample(
            image(33, 100), Objects(boxes, index, index), 5, 1
        )
        assert isinstance(target, Objects)
        down, across = shown.shape[1] / 33, shown.shape[2] / 100
        wanted = [[x1 * across, y1 * down, x2 * across, y2 * down] for x1, y1, x2, y2 in boxes]
        torch.testing.assert_close(target.boxes, torch.tensor(wanted))


def drawn(resize: Resize, count: int, seed: int = 0, view: int = 0) -> list[int]:
    single, given = Single([resize], seed), image(4, 4)
    return [single(given, key, view).shape[1] for key in range(count)]


def test_one_of_several_sizes_is_drawn_alike() -> None:
    counts = Counter(drawn(Resize((5, 9, 6)), 600))
    assert set(counts) == {5, 9, 6} and all(140 < number < 260 for number in counts.values())


def test_any_size_of_a_range_is_drawn_alike() -> None:
    counts = Counter(drawn(Resize((9, 5), range=True), 1000))
    assert set(counts) == {5, 6, 7, 8, 9}
    assert all(140 < number < 260 for number in counts.values())


@pytest.mark.parametrize("resize", [Resize((5, 20)), Resize((5, 20), range=True)], ids=str)
def test_sizes_follow_seed_sample_and_view(resize: Resize) -> None:
    first = drawn(resize, 40)
    torch.manual_seed(5)
    assert drawn(resize, 40) == first
    assert drawn(resize, 40, seed=1) != first and drawn(resize, 40, view=1) != first


def test_a_size_that_is_not_drawn_is_not_random() -> None:
    assert not is_random([Resize(9)]) and not is_random([Resize((9,))])
    assert is_random([Resize((9, 8))]) and is_random([Resize((8, 9), range=True)])
    assert not is_random([Resize((9, 9))])


def test_squares_of_several_sizes() -> None:
    single = Single([Resize((6, 8), square=True)], 0)
    assert {single(image(9, 30), key, 0).shape[1:] for key in range(20)} == {(6, 6), (8, 8)}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"size": 800, "longest": 1333}, Resize(800, longest=1333)),
        ({"size": [480, 800], "range": True}, Resize((480, 800), range=True)),
    ],
    ids=str,
)
def test_recipes_can_say_them(given: dict[str, Any], wanted: Resize) -> None:
    assert READ.validate_python({"kind": "resize", **given}) == wanted


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"size": []}, "`size` must be at least 1"),
        ({"size": [8, 0]}, "`size` must be at least 1"),
        ({"size": [8, 9], "longest": 8}, "`longest` must be at least the largest `size`, 9, got 8"),
        ({"square": True, "longest": 300}, "`square` and `longest` exclude each other"),
        ({"size": 8, "range": True}, "`size` must be a list with `range`, got 8"),
    ],
    ids=str,
)
def test_recipes_cannot_say_nonsense(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as error:
        READ.validate_python({"kind": "resize", **given})
    assert said in str(error.value)
