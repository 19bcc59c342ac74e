"""Polygons and run lengths as masks: pixel by pixel those of pycocotools."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stillhouse.data.instances.outlines import decode_outline

SHAPE = (23, 31)


def blob(seed: int) -> np.ndarray:
    """A mask of a few rectangles, with holes."""
    chance, mask = np.random.default_rng(seed), np.zeros(SHAPE, dtype=bool)
    for filled in (True, True, False, True):
        y, x = (int(chance.integers(side)) for side in SHAPE)
        mask[y : y + 9, x : x + 7] = filled
    return mask


def runs(mask: np.ndarray) -> list[int]:
    """Lengths of runs of background and object in turn, down the columns, one by one."""
    lengths, inside = [0], False
    for column in range(mask.shape[1]):
        for row in range(mask.shape[0]):
            if mask[row, column] != inside:
                lengths.append(0)
                inside = not inside
            lengths[-1] += 1
    return lengths


@pytest.mark.parametrize("seed", range(5))
def test_polygons_are_drawn_as_by_the_reference(seed: int) -> None:
    from pycocotools import mask as reference

    chance = np.random.default_rng(seed)
    polygons = [
        (chance.random((int(chance.integers(3, 8)), 2)) * [34, 26] - 1.5).ravel().round(2).tolist()
        for _ in range(1 + seed % 3)
    ]
    code = reference.merge(reference.frPyObjects(polygons, *SHAPE))
    found = decode_outline(polygons, SHAPE)
    assert found.dtype == bool and found.any()
    assert np.array_equal(found, reference.decode(code).astype(bool))


@pytest.mark.parametrize("seed", range(5))
def test_run_lengths_go_down_the_columns(seed: int) -> None:
    from pycocotools import mask as reference

    mask = blob(seed)
    assert np.array_equal(decode_outline({"size": list(SHAPE), "counts": runs(mask)}, SHAPE), mask)
    code = reference.encode(np.asfortranarray(mask.astype(np.uint8)))
    text = code["counts"].decode()
    assert np.array_equal(decode_outline({"size": list(SHAPE), "counts": text}, SHAPE), mask)


def test_corners_on_whole_numbers_enclose_whole_pixels() -> None:
    square = decode_outline([[2, 3, 7, 3, 7, 9, 2, 9]], SHAPE)
    wanted = np.zeros(SHAPE, dtype=bool)
    wanted[3:9, 2:7] = True
    assert np.array_equal(square, wanted)


def test_polygons_end_at_the_border_of_the_image() -> None:
    assert decode_outline([[-30, -20, 60, -20, 60, 40, -30, 40]], SHAPE).all()


AREA = SHAPE[0] * SHAPE[1]
CORNERS = "a polygon must be a list x, y, x, y, ... of at least 3 corners"
INSIDE = "the corners of a polygon must lie in the image"


@pytest.mark.parametrize(
    ("outline", "message"),
    [
        (None, "it has neither polygons nor run lengths"),
        ([], "it has neither polygons nor run lengths"),
        (3, "it has neither polygons nor run lengths"),
        ([[]], CORNERS),
        ([[1, 2, 3, 4]], CORNERS),  # the reference would take it for a box
        ([[1, 2, 3, 4, 5, 6, 7]], CORNERS),
        ([1, 2, 3, 4, 5, 6], CORNERS),
        ([["a", 2, 3, 4, 5, 6]], CORNERS),
        ([[1, 2, 3, 4, 5, None]], INSIDE),
        ([[1, 2, 3, 4, 5, float("nan")]], INSIDE),
        ([[1, 2, 3, 4, 5, 1e9]], INSIDE),
        ({"counts": [AREA]}, "its size is None, that of the image [23, 31]"),
        ({"size": [31, 23], "counts": [AREA]}, "its size is [31, 23], that of the image [23, 31]"),
        ({"size": [23, 31], "counts": [4, 5]}, f"its runs have 9 pixels, the image {AREA}"),
        ({"size": [23, 31], "counts": [-1, AREA + 1]}, "counts must be a string, or a list of run"),
        ({"size": [23, 31], "counts": None}, "counts must be a string, or a list of run lengths"),
        ({"size": [23, 31], "counts": "abc~"}, ""),
        ({"size": [23, 31], "counts": "é"}, ""),
        ({"size": [23, 31], "counts": ""}, ""),
    ],
)
def test_outlines_that_give_no_mask(outline: Any, message: str) -> None:
    with pytest.raises((ValueError, RuntimeError)) as error:
        decode_outline(outline, SHAPE)
    assert str(error.value).startswith(message)
