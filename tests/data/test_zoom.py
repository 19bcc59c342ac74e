"""Crops that show objects, and larger canvases: boxes and masks against what is painted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from stillhouse.batches import IGNORE, Objects
from stillhouse.data.transforms import BoxCrop, Expand, Single, Transform

READ = TypeAdapter(Transform)
HEIGHT, WIDTH = 40, 60
BOXES = ((2, 3, 14, 12), (20, 8, 44, 30), (50, 30, 60, 40))


def coordinates() -> Tensor:
    """An image whose pixels say where they were: the row, the column, and 200."""
    rows, columns = torch.arange(HEIGHT)[:, None], torch.arange(WIDTH)[None]
    parts = [part.expand(HEIGHT, WIDTH) for part in (rows, columns, torch.tensor([[200]]))]
    return torch.stack(parts).to(torch.uint8)


def objects(boxes: Any = BOXES) -> Objects:
    tensor = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    masks = torch.zeros(len(tensor), HEIGHT, WIDTH, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, tensor.int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = True
    index = torch.arange(len(tensor))
    return Objects(tensor, index, torch.zeros_like(index), masks=masks)


def window_of(shown: Tensor) -> tuple[int, int, int, int]:
    """Where an image of coordinates was cut: x1, y1, x2, y2."""
    rows, columns = shown[0, :, 0].tolist(), shown[1, 0].tolist()
    assert rows == list(range(rows[0], rows[-1] + 1))
    assert columns == list(range(columns[0], columns[-1] + 1))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def iou(a: Any, b: Any) -> float:
    wide, high = (max(0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1))
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return wide * high / (sum(areas) - wide * high)


def centre_inside(box: Any, window: Any) -> bool:
    centre = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return all(window[i] <= centre[i] < window[i + 2] for i in (0, 1))


# ---------------------------------------------------------------------------------------- box_crop


@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.3, 0.5])
def test_a_crop_shows_an_object_and_drops_those_whose_centre_is_outside(overlap: float) -> None:
    single = Single([BoxCrop(1.0, (overlap,))], 3)
    image, target, cropped = coordinates(), objects(), 0
    for key in range(80):
        shown, found = single.sample(image, target, key, 0)
        assert isinstance(found, Objects) and found.masks is not None
        x1, y1, x2, y2 = window = window_of(shown)
        assert torch.equal(shown, image[:, y1:y2, x1:x2])
        inside = [k for k, box in enumerate(BOXES) if centre_inside(box, window)]
        assert found.labels.tolist() == inside and inside
        for label, box, mask in zip(found.labels.tolist(), found.boxes, found.masks, strict=True):
            left, top, right, bottom = BOXES[label]
            clipped = [max(left, x1), max(top, y1), min(right, x2), min(bottom, y2)]
            assert box.tolist() == [c - o for c, o in zip(clipped, (x1, y1) * 2, strict=True)]
            assert torch.equal(mask, target.masks[label, y1:y2, x1:x2])  # type: ignore[index]
        if shown.shape != image.shape:
            cropped += 1
            assert max(iou(BOXES[k], window) for k in inside) >= overlap
            assert 0.3 * HEIGHT - 1 < y2 - y1 <= HEIGHT and 0.3 * WIDTH - 1 < x2 - x1 <= WIDTH
            assert 0.5 <= (x2 - x1) / (y2 - y1) <= 2.0
    assert cropped > 40


def test_an_image_stays_where_no_window_fits() -> None:
    """A tiny object never has an IoU of .9 with a window."""
    single = Single([BoxCrop(1.0, (0.9,))], 3)
    for key in range(10):
        shown, found = single.sample(coordinates(), objects([[20, 20, 22, 22]]), key, 0)
        assert torch.equal(shown, coordinates()) and isinstance(found, Objects)
        assert found.boxes.tolist() == [[20, 20, 22, 22]]


@pytest.mark.parametrize("probability", [0.0, 0.4, 1.0])
def test_images_are_cropped_with_the_probability(probability: float) -> None:
    single = Single([BoxCrop(probability, (0.0,), scale=(0.3, 0.8))], 0)
    counts = [
        single.sample(coordinates(), objects(), key, 0)[0].shape[1:] != (HEIGHT, WIDTH)
        for key in range(200)
    ]
    assert abs(sum(counts) / 200 - probability) < 0.1


@pytest.mark.parametrize("target", [objects([]), None, 4, torch.zeros(HEIGHT, WIDTH).long()])
def test_images_without_objects_are_cropped_anywhere(target: Any) -> None:
    corners = set()
    for key in range(30):
        shown, found = Single([BoxCrop(1.0)], 0).sample(coordinates(), target, key, 0)
        window = window_of(shown)
        corners.add(window[:2])
        if isinstance(found, Tensor):
            assert found.shape == shown.shape[1:]
        elif isinstance(found, Objects):
            assert found.boxes.shape == (0, 4)
        else:
            assert found == target
    assert len(corners) > 20


def test_least_overlaps_are_drawn_alike() -> None:
    """Half of the windows must have an IoU of .7; of the others, some have it by chance."""
    box = (10, 5, 50, 35)

    def share(overlaps: tuple[float, ...]) -> float:
        single, target = Single([BoxCrop(1.0, overlaps)], 1), objects([box])
        shown = (single.sample(coordinates(), target, key, 0)[0] for key in range(300))
        return sum(iou(box, window_of(image)) >= 0.7 for image in shown) / 300

    by_chance = share((0.0,))
    assert by_chance < 0.5
    assert abs(share((0.0, 0.7)) - (1 + by_chance) / 2) < 0.1


def test_later_transforms_draw_the_same_whether_objects_are_there_or_not() -> None:
    chain = [BoxCrop(0.0), Expand(1.0)]
    for key in range(5):
        with_objects = Single(chain, 3).sample(coordinates(), objects(), key, 0)[0]
        assert torch.equal(with_objects, Single(chain, 3)(coordinates(), key, 0))


# ------------------------------------------------------------------------------------------ expand


def test_an_image_lies_unchanged_on_a_grey_canvas() -> None:
    single, sizes = Single([Expand(1.0, 3.0, grey=90)], 2), []
    for key in range(60):
        shown, found = single.sample(coordinates(), objects(), key, 0)
        assert isinstance(found, Objects)
        inside = shown[2] == 200
        rows, columns = (inside.any(axis).nonzero().flatten().tolist() for axis in (1, 0))
        top, left = rows[0], columns[0]
        assert (rows[-1] - top + 1, columns[-1] - left + 1) == (HEIGHT, WIDTH)
        assert torch.equal(shown[:, inside].reshape(3, HEIGHT, WIDTH), coordinates())
        assert (shown[:, ~inside] == 90).all()
        assert (found.boxes - objects().boxes).tolist() == [[left, top, left, top]] * 3
        sizes.append((shown.shape[1] / HEIGHT, shown.shape[2] / WIDTH))
    for down, across in sizes:
        assert 1 <= down <= 3 and abs(down - across) < 0.05
    factors = [down for down, _ in sizes]
    assert min(factors) < 1.2 and max(factors) > 2.8 and abs(sum(factors) / 60 - 2) < 0.3


def test_classes_of_pixels_are_ignored_around_the_image() -> None:
    areas = torch.ones(HEIGHT, WIDTH, dtype=torch.int64)
    shown, found = Single([Expand(1.0)], 2).sample(coordinates(), areas, 0, 0)
    assert isinstance(found, Tensor) and found.shape == shown.shape[1:]
    assert torch.equal(found == 1, shown[2] == 200)
    assert torch.equal(found == IGNORE, shown[2] != 200)


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_images_are_expanded_with_the_probability(probability: float) -> None:
    single = Single([Expand(probability)], 0)
    larger = [single(coordinates(), key, 0).shape[1] > HEIGHT for key in range(200)]
    assert abs(sum(larger) / 200 - probability) < 0.1


# ------------------------------------------------------------------------------------- the recipes


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kind": "box_crop", "probability": 2}, "`probability` must be in [0, 1], got 2"),
        ({"kind": "box_crop", "overlaps": []}, "`overlaps` must be one or more numbers in [0, 1)"),
        ({"kind": "box_crop", "overlaps": [1.0]}, "`overlaps` must be one or more numbers in"),
        ({"kind": "box_crop", "scale": [0.5, 1.5]}, "`scale` must be increasing in (0, 1]"),
        ({"kind": "box_crop", "ratio": [2, 1]}, "`ratio` must be positive and increasing"),
        ({"kind": "expand", "largest": 0.5}, "`largest` must be at least 1, got 0.5"),
        ({"kind": "expand", "grey": 256}, "`grey` must be in [0, 255], got 256"),
        ({"kind": "expand", "probability": -1}, "`probability` must be in [0, 1], got -1"),
    ],
    ids=str,
)
def test_recipes_cannot_say_nonsense(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as error:
        READ.validate_python(given)
    assert said in str(error.value)
