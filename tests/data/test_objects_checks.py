"""What is done about boxes and images with a problem, whatever file they come from."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stillhouse.data.objects.annotations import CHOICES, Annotations, ObjectPolicy
from stillhouse.data.objects.build import build_source
from stillhouse.data.objects.source import ObjectSource
from stillhouse.data.source import targets_of
from stillhouse.errors import UserError

HEIGHT, WIDTH = 20, 30
CLASSES = ("cat", "dog")
# image, class, x1, y1, x2, y2; the images are in no order
GOOD = [(2, 0, 1, 2, 11, 12), (0, 1, 0, 0, 30, 20), (2, 1, 3.5, 4.25, 9, 19)]
Row = tuple[float, ...]


def said(make: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        make()
    return str(error.value)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return tmp_path


def found(root: Path, rows: list[Row], **changes: Any) -> Annotations:
    """Three images, of which the second has no object."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    parts: dict[str, Any] = {
        "name": "toy",
        "root": root,
        "paths": [f"{number}.png" for number in range(3)],
        "shapes": np.array([[HEIGHT, WIDTH]] * 3),
        "boxes": table[:, 2:],
        "labels": table[:, 1].astype(np.int64),
        "image": table[:, 0].astype(np.int64),
        "classes": CLASSES,
        "place": lambda i: f"toy.txt, line {i}",
        "label": lambda i: f"class {rows[i][1]}",
        "remedy": "rename them",
    }
    return Annotations(**{**parts, **changes})


def opened(root: Path, *bad: Row, **policy: str) -> ObjectSource:
    return build_source(found(root, [*GOOD, *bad]), ObjectPolicy(**policy))


def rows_of(source: ObjectSource) -> list[list[float]]:
    """Image, class and corners of each object."""
    objects = source.targets
    parts = (objects.image.tolist(), objects.labels.tolist(), objects.boxes.tolist())
    return [[i, label, *box] for i, label, box in zip(*parts, strict=True)]


def sorted_rows(*rows: Row) -> list[list[float]]:
    return [list(row) for row in sorted(rows, key=lambda row: row[0])]


# ----------------------------------------------------------------------------------- what is right


def test_objects_are_sorted_by_image_and_keep_their_order_in_it(root: Path) -> None:
    source = opened(root)
    assert rows_of(source) == sorted_rows(*GOOD)
    assert (source.notes, source.classes, len(source)) == ((), CLASSES, 3)
    objects = source.targets
    assert objects.images == 3 and targets_of(source) is objects
    assert objects.boxes.dtype == torch.float32
    assert objects.labels.dtype == objects.image.dtype == torch.int64
    assert objects.crowd is None and objects.difficult is None and objects.area is None
    assert source.shapes.tolist() == [[HEIGHT, WIDTH]] * 3


def test_a_sample_has_the_objects_of_its_image(root: Path) -> None:
    source = opened(root)
    for index in range(3):
        sample = source[index]
        own = [list(row) for row in GOOD if row[0] == index]
        target: Any = sample.target
        assert (sample.key, target.images) == (index, 1)
        assert target.boxes.tolist() == [row[2:] for row in own]
        assert target.labels.tolist() == [row[1] for row in own]
        assert target.image.tolist() == [0] * len(own)


def test_flags_and_areas_stay_with_their_objects(root: Path) -> None:
    flags = {"crowd": np.array([True, False, False]), "difficult": np.array([False, True, False])}
    whole = found(root, GOOD, **flags, area=np.array([1.5, 2.5, 3.5]))
    objects = build_source(whole, ObjectPolicy()).targets
    assert objects.labels.tolist() == [1, 0, 1]  # the second comes first
    assert objects.crowd is not None and objects.crowd.tolist() == [False, True, False]
    assert objects.difficult is not None and objects.difficult.tolist() == [True, False, False]
    assert objects.area is not None and objects.area.tolist() == [2.5, 1.5, 3.5]


def test_fractions_are_of_the_width_and_the_height(root: Path) -> None:
    """The shapes come from the headers of the images."""
    shapes = np.zeros((3, 2), dtype=np.int64)
    rows = [(0, 0, 0.1, 0.2, 0.5, 0.75)]
    source = build_source(found(root, rows, shapes=shapes, fractions=True), ObjectPolicy())
    wanted = [0.1 * WIDTH, 0.2 * HEIGHT, 0.5 * WIDTH, 0.75 * HEIGHT]
    assert source.targets.boxes.tolist() == [pytest.approx(wanted)]
    assert source.shapes.tolist() == [[HEIGHT, WIDTH]] * 3


# ------------------------------------------------------------------------------------------- boxes

REVERSED = (1, 0, 12, 15, 2, 5)  # both corners are exchanged
MIRRORED = (1, 0, 12, 5, 2, 15)  # only x is
OUTSIDE = (1, 1, -4, 3, 8, 25)
BEYOND = (1, 1, 40, 3, 50, 9)  # wholly
FLAT = (1, 0, 5, 5, 5, 9)
THIN = (1, 0, 5, 5, 5.9, 9)
REPEATED = GOOD[2]


@pytest.mark.parametrize("bad", [REVERSED, MIRRORED])
def test_reversed_corners(bad: Row, root: Path) -> None:
    assert said(lambda: opened(root, bad)) == (
        "toy: 1 of 4 boxes have x2 < x1 or y2 < y1, the first is toy.txt, line 3; correct them, "
        "exchange the corners with reversed='swap', or skip them with reversed='skip'"
    )
    swapped = opened(root, bad, reversed="swap")
    assert rows_of(swapped) == sorted_rows(*GOOD, (1, 0, 2, 5, 12, 15))
    assert swapped.notes == (
        "toy: 1 of 4 boxes have x2 < x1 or y2 < y1 and are swapped; the first is toy.txt, line 3",
    )
    skipped = opened(root, bad, reversed="skip")
    assert rows_of(skipped) == sorted_rows(*GOOD)
    assert "and are skipped" in skipped.notes[0]


def test_boxes_outside_of_their_image(root: Path) -> None:
    clipped = opened(root, OUTSIDE)
    assert rows_of(clipped) == sorted_rows(*GOOD, (1, 1, 0, 3, 8, HEIGHT))
    assert clipped.notes == (
        "toy: 1 of 4 boxes reach outside of their image and are clipped; the first is toy.txt, "
        "line 3",
    )
    kept = opened(root, OUTSIDE, outside="keep")
    assert rows_of(kept) == sorted_rows(*GOOD, OUTSIDE) and kept.notes == ()
    assert rows_of(opened(root, OUTSIDE, outside="skip")) == sorted_rows(*GOOD)
    assert said(lambda: opened(root, OUTSIDE, outside="fail")) == (
        "toy: 1 of 4 boxes reach outside of their image, the first is toy.txt, line 3; correct "
        "them, clip them with outside='clip', or skip them with outside='skip'"
    )


def test_rounding_is_clipped_without_a_word(root: Path) -> None:
    near = (1, 0, -0.02, 3, 30.05, 20.0001)
    for outside in ("clip", "skip", "fail"):
        source = opened(root, near, outside=outside)
        assert source.notes == ()
        assert rows_of(source) == sorted_rows(*GOOD, (1, 0, 0, 3, 30, 20))


def test_a_box_wholly_outside_has_nothing_left(root: Path) -> None:
    source = opened(root, BEYOND)
    assert rows_of(source) == sorted_rows(*GOOD)
    clipped, flat = source.notes
    assert "1 of 4 boxes reach outside of their image and are clipped" in clipped
    assert flat == (
        "toy: 1 of 4 boxes are less than one pixel wide or high and are skipped; the first is "
        "toy.txt, line 3"
    )
    assert rows_of(opened(root, BEYOND, outside="keep")) == sorted_rows(*GOOD, BEYOND)


@pytest.mark.parametrize("bad", [FLAT, THIN])
def test_boxes_without_area(bad: Row, root: Path) -> None:
    assert rows_of(opened(root, bad)) == sorted_rows(*GOOD)
    wanted = [pytest.approx(row) for row in sorted_rows(*GOOD, bad)]
    assert rows_of(opened(root, bad, flat="keep")) == wanted
    assert "keep them with flat='keep'" in said(lambda: opened(root, bad, flat="fail"))


def test_a_box_of_one_pixel_has_an_area(root: Path) -> None:
    pixel = (1, 0, 7.2, 5, 8.2, 6)  # whose difference is below 1 in float64
    assert 8.2 - 7.2 < 1
    assert opened(root, pixel, flat="fail").targets.labels.tolist() == [1, 0, 0, 1]


def test_repeated_objects(root: Path) -> None:
    assert rows_of(opened(root, REPEATED)) == sorted_rows(*GOOD, REPEATED)
    other_class, other_image = (2, 0, *REPEATED[2:]), (1, *REPEATED[1:])
    bad = (REPEATED, other_class, other_image, REPEATED)
    source = opened(root, *bad, duplicates="skip")
    assert rows_of(source) == sorted_rows(*GOOD, other_class, other_image)
    assert source.notes == (
        "toy: 2 of 7 objects repeat the box and class of another and are skipped; the first is "
        "toy.txt, line 3",
    )
    assert "keep them with duplicates='keep'" in said(
        lambda: opened(root, REPEATED, duplicates="fail")
    )


def test_unknown_classes(root: Path) -> None:
    bad = (1, -1, 1, 1, 5, 5)
    assert said(lambda: opened(root, bad)) == (
        "toy: 1 of 4 objects are of none of the 2 classes, the first is class -1 in toy.txt, "
        "line 3; rename them, or skip them with unknown='skip'"
    )
    source = opened(root, bad, unknown="skip")
    assert rows_of(source) == sorted_rows(*GOOD)
    assert "1 of 4 objects are of none of the 2 classes and are skipped" in source.notes[0]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_always_fail(value: float, root: Path) -> None:
    lenient = {name: known[0] for name, known in CHOICES.items()}
    message = said(lambda: opened(root, (1, 0, 1, 2, value, 4), **lenient))
    assert message == (
        "toy.txt, line 3: the numbers of the box must be finite, got "
        f"[1.0, 2.0, {value}, 4.0]; correct them"
    )


@pytest.mark.parametrize("seed", range(5))
def test_any_boxes_end_up_inside_or_are_counted(seed: int, root: Path) -> None:
    """Random boxes, the defaults re-derived one by one."""
    random = np.random.default_rng(seed)
    rows: list[Row] = []
    for _ in range(60):
        x, y = random.uniform(-12, 40), random.uniform(-12, 30)
        width, height = random.uniform(0, 6, 2)
        rows.append((int(random.integers(3)), int(random.integers(2)), x, y, x + width, y + height))
    source = build_source(found(root, rows), ObjectPolicy())
    wanted, outside, flat = [], 0, 0
    for row in sorted(rows, key=lambda row: row[0]):
        x1, x2 = (min(max(x, 0), WIDTH) for x in row[2::2])
        y1, y2 = (min(max(y, 0), HEIGHT) for y in row[3::2])
        outside += max(abs(a - b) for a, b in zip(row[2:], (x1, y1, x2, y2), strict=True)) > 0.1
        if x2 - x1 < 0.99 or y2 - y1 < 0.99:
            flat += 1
        else:
            wanted.append(pytest.approx([row[0], row[1], x1, y1, x2, y2], rel=1e-6))
    assert rows_of(source) == wanted
    clipped, skipped = source.notes
    assert clipped.startswith(f"toy: {outside} of 60 ") and outside > 5
    assert skipped.startswith(f"toy: {flat} of 60 ") and flat > 5


# ------------------------------------------------------------------------------------------ images


def test_images_without_objects(root: Path) -> None:
    assert len(opened(root)) == 3
    source = opened(root, empty="skip")
    assert source.paths == ("0.png", "2.png")
    assert rows_of(source) == [[min(row[0], 1), *row[1:]] for row in sorted_rows(*GOOD)]
    assert source.shapes.tolist() == [[HEIGHT, WIDTH]] * 2
    assert source.notes == (
        f"toy: 1 of 3 images have no objects and are skipped; the first is {root}/1.png",
    )
    assert said(lambda: opened(root, empty="fail")) == (
        f"toy: 1 of 3 images have no objects, the first is {root}/1.png; annotate them, keep them "
        "with empty='keep', or skip them with empty='skip'"
    )


def test_an_image_whose_objects_are_all_skipped_has_none(root: Path) -> None:
    assert opened(root, FLAT, empty="skip").paths == ("0.png", "2.png")


def test_images_that_are_missing(root: Path) -> None:
    (root / "0.png").unlink()
    assert said(lambda: opened(root)) == (
        f"toy: 1 of 3 images do not exist, the first is {root}/0.png; put them there, or skip "
        "them with missing='skip'"
    )
    source = opened(root, FLAT, missing="skip")
    assert source.paths == ("1.png", "2.png")
    assert rows_of(source) == [[1, *row[1:]] for row in GOOD if row[0] == 2]
    first, second = source.notes
    assert "1 of 3 images do not exist" in first
    assert "1 of 3 boxes" in second and "line 3" in second  # those of the missing are not counted


def test_images_that_are_broken(root: Path) -> None:
    data = (root / "0.png").read_bytes()
    (root / "0.png").write_bytes(data[: len(data) // 2])  # its header is intact
    source = opened(root)
    assert len(source) == 3
    assert f"{root}/0.png cannot be read as an image" in said(lambda: source[0])
    skipped = opened(root, broken="skip")
    assert skipped.paths == ("1.png", "2.png")
    assert skipped.notes == (
        f"toy: 1 of 3 images cannot be read and are skipped; the first is {root}/0.png",
    )


def test_images_whose_header_is_broken_fail_where_it_is_needed(root: Path) -> None:
    (root / "2.png").write_bytes(b"no image")
    shapes = np.array([[HEIGHT, WIDTH], [0, 0], [0, 0]])
    whole = found(root, GOOD, shapes=shapes)
    assert said(lambda: build_source(whole, ObjectPolicy())) == (
        f"toy: 1 of 3 images cannot be read, the first is {root}/2.png; repair them, or skip them "
        "with broken='skip'"
    )
    source = build_source(whole, ObjectPolicy(broken="skip"))
    assert source.paths == ("0.png", "1.png") and rows_of(source) == [list(GOOD[1])]


def test_nothing_left_is_an_error(root: Path) -> None:
    whole = found(root, [FLAT])
    assert said(lambda: build_source(whole, ObjectPolicy(empty="skip"))) == (
        f"toy: no images are left in {root} (1 of 1 boxes are less than one pixel wide or high "
        "and are skipped; the first is toy.txt, line 0; 3 of 3 images have no objects and are "
        f"skipped; the first is {root}/0.png)"
    )
    assert len(build_source(found(root, []), ObjectPolicy()).targets.labels) == 0


def test_notes_of_the_reader_come_first(root: Path) -> None:
    whole = found(root, [*GOOD, OUTSIDE, FLAT], notes=("toy: something",))
    notes = build_source(whole, ObjectPolicy(empty="skip", duplicates="skip")).notes
    assert [note.split()[-1] for note in notes] == ["something", "3", "4"]


@pytest.mark.parametrize("option", CHOICES)
def test_choices(option: str) -> None:
    for choice in CHOICES[option]:
        assert getattr(ObjectPolicy(**{option: choice}), option) == choice
    assert said(lambda: ObjectPolicy(**{option: "skipp"})).startswith(f"`{option}` must be ")
    assert said(lambda: ObjectPolicy(**{option: True})).startswith(  # type: ignore[arg-type]
        f"`{option}` must be "
    )
