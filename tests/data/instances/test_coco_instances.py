"""COCO with masks: what is drawn, what is kept, and what is said of mistakes."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mask_albums import photo, said, save
from stillhouse.batches import Objects
from stillhouse.data.catalogue import open_source
from stillhouse.data.holdout import hold_out
from stillhouse.data.instances.coco import OutlineSource
from stillhouse.data.positions import has_positions
from stillhouse.data.source import classes_of, notes_of, take, targets_of

Json = dict[str, Any]
SHAPES = {4: (12, 16), 9: (10, 14), 2: (9, 9)}  # by id of the image; the last has no object
NAMES = {90: "teddy bear", 3: "zebra"}
ELL = [[2, 2, 5, 2, 5, 8, 10, 8, 10, 11, 2, 11]]
SQUARE = [[1.0, 1.0, 4.0, 1.0, 4.0, 5.0, 1.0, 5.0], [6.0, 6.0, 9.0, 6.0, 9.0, 9.0, 6.0, 9.0]]


def runs_of(mask: np.ndarray, compressed: bool) -> Json:
    from pycocotools import mask as reference

    if compressed:
        code = reference.encode(np.asfortranarray(mask.astype(np.uint8)))
        return {"size": list(mask.shape), "counts": code["counts"].decode()}
    flat = np.concatenate([[False], mask.T.ravel(), [not mask.T.ravel()[-1]]])
    ends = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate([[0], ends])).tolist()
    return {"size": list(mask.shape), "counts": counts}


def drawn(shape: tuple[int, int], *windows: tuple[int, int, int, int]) -> np.ndarray:
    """A mask of rectangles x1, y1, x2, y2."""
    mask = np.zeros(shape, dtype=bool)
    for x1, y1, x2, y2 in windows:
        mask[y1:y2, x1:x2] = True
    return mask


CROWD = drawn((12, 16), (0, 0, 3, 12), (12, 4, 16, 9))
HOLE = drawn((10, 14), (3, 2, 11, 9)) & ~drawn((10, 14), (5, 4, 8, 6))


def content() -> Json:
    """Two images with two objects each, in another order than the images."""
    rows = [
        (9, 90, 0, 40.5, runs_of(HOLE, True)),
        (4, 3, 0, 33, ELL),
        (4, 90, 1, 50, runs_of(CROWD, False)),
        (9, 3, 0, 21.25, SQUARE),
    ]
    return {
        "info": {"note": 'a "segmentation": [1] of nothing'},
        "images": [
            {"id": i, "file_name": f"{i:012d}.png", "height": h, "width": w}
            for i, (h, w) in SHAPES.items()
        ],
        "annotations": [
            {
                "segmentation": outline,
                "area": area,
                "iscrowd": crowd,
                "image_id": image,
                "bbox": [1, 1, 8, 8],
                "category_id": kind,
                "id": 70 + i,
            }
            for i, (image, kind, crowd, area, outline) in enumerate(rows)
        ],
        "categories": [{"id": i, "name": name} for i, name in NAMES.items()],
    }


def file_of(root: Path) -> Path:
    return root / "annotations" / "instances_train2017.json"


def write(root: Path, edit: Callable[[Json], object] = lambda content: None, **how: Any) -> Path:
    made = content()
    edit(made)
    file_of(root).parent.mkdir(exist_ok=True)
    file_of(root).write_text(json.dumps(made, **how))
    for number, shape in SHAPES.items():
        save(root / "train2017" / f"{number:012d}.png", photo(number, shape))
    return root


def opened(root: Path, **options: Any) -> OutlineSource:
    data = open_source("coco/instances", root, "train", **options)
    assert isinstance(data, OutlineSource)
    return data


def objects_at(data: OutlineSource, index: int) -> Objects:
    target = data[index].target
    assert isinstance(target, Objects)
    return target


def masks_of(objects: Objects) -> Tensor:
    assert objects.masks is not None and objects.masks.dtype == torch.bool
    return objects.masks


def edit(place: int, **values: Any) -> Callable[[Json], object]:
    return lambda content: content["annotations"][place].update(values)


# ---------------------------------------------------------------------------------- what is there


@pytest.mark.parametrize("how", [{}, {"indent": 1}, {"separators": (",", ":")}])
def test_objects_have_the_masks_that_are_drawn(how: Json, tmp_path: Path) -> None:
    data = opened(write(tmp_path, **how))
    assert (len(data), data.name, data.classes) == (
        3,
        "coco/instances/train",
        ("zebra", "teddy bear"),
    )
    assert [Path(path).stem[-1] for path in data.annotated.paths] == ["2", "4", "9"]
    first, second, third = (objects_at(data, index) for index in range(3))
    assert masks_of(first).shape == (0, 9, 9) and first.boxes.shape == (0, 4)
    ell = drawn((12, 16), (2, 2, 5, 11), (2, 8, 10, 11))
    assert np.array_equal(masks_of(second), [ell, CROWD])
    assert second.boxes.tolist() == [[2, 2, 10, 11], [0, 0, 16, 12]]
    assert second.labels.tolist() == [0, 1]
    squares = drawn((10, 14), (1, 1, 4, 5), (6, 6, 9, 9))
    assert np.array_equal(masks_of(third), [HOLE, squares])
    assert third.boxes.tolist() == [[3, 2, 11, 9], [1, 1, 9, 9]]
    for objects, crowd, area in (
        (second, [False, True], [33, 50]),
        (third, [False] * 2, [40.5, 21.25]),
    ):
        assert objects.crowd is not None and objects.area is not None
        assert objects.crowd.tolist() == crowd  # areas are those that were annotated
        assert objects.area.tolist() == area
        assert objects.images == 1 and not objects.image.any()
    assert torch.equal(data[1].image, torch.from_numpy(photo(4, SHAPES[4])).permute(2, 0, 1))


def test_outlines_stay_in_their_file(tmp_path: Path) -> None:
    data = opened(write(tmp_path))
    again = pickle.loads(pickle.dumps(data))
    assert torch.equal(masks_of(objects_at(again, 2)), masks_of(objects_at(data, 2)))
    with file_of(tmp_path).open("a") as file:
        file.write(" ")
    assert (
        said(lambda: data[1]) == f"{file_of(tmp_path)} has changed since it was opened; start again"
    )
    file_of(tmp_path).unlink()
    assert said(lambda: data[1]).startswith(f"{file_of(tmp_path)} cannot be read (")
    os.mkfifo(file_of(tmp_path))
    assert "it is a pipe or a device" in said(lambda: data[1])
    assert objects_at(data, 0).images == 1  # an image without objects needs no outline


def test_what_is_known_without_drawing(tmp_path: Path) -> None:
    data = opened(write(tmp_path))
    targets = targets_of(data)
    assert isinstance(targets, Objects) and targets.masks is None and targets.images == 3
    assert targets.boxes.tolist() == [[1, 1, 9, 9]] * 4
    assert has_positions(data) and notes_of(data) == ()
    assert classes_of(data).tolist() == [[0, 0], [1, 1], [1, 1]]
    assert data.shapes.tolist() == [[9, 9], [12, 16], [10, 14]]
    rest, held = hold_out(data, 1)
    assert (len(rest), len(held)) == (2, 1)
    part = take(data, torch.tensor([2]), "part")
    assert np.array_equal(masks_of(part[0].target)[0], HOLE)  # type: ignore[arg-type]


def test_the_fingerprint_follows_outlines(tmp_path: Path) -> None:
    first = opened(write(tmp_path)).fingerprint
    assert opened(tmp_path).fingerprint == first
    others = {opened(tmp_path, malformed="skip").fingerprint}
    moved = [[3, *ELL[0][1:]]]
    others.add(opened(write(tmp_path, edit(1, segmentation=moved))).fingerprint)
    others.add(opened(tmp_path, empty="skip").fingerprint)
    assert len({first, *others}) == 4


def test_options_of_boxes_hold_for_objects_with_masks(tmp_path: Path) -> None:
    write(tmp_path, edit(1, bbox=[1, 1, 8, 0.25]))
    data = opened(tmp_path, empty="skip")
    assert len(data) == 2
    assert [note.partition(": ")[2] for note in data.notes] == [
        "1 of 4 boxes are less than one pixel wide or high and are skipped; the first is "
        f"{file_of(tmp_path)}: annotations[1]",
        "1 of 3 images have no objects and are skipped; the first is "
        f"{tmp_path}/train2017/{2:012d}.png",
    ]
    assert np.array_equal(masks_of(objects_at(data, 0)), [CROWD])  # not the outline of another
    assert np.array_equal(masks_of(objects_at(data, 1))[0], HOLE)


def test_exports_and_names_of_files(tmp_path: Path) -> None:
    write(tmp_path)
    data = opened(
        tmp_path, annotations="annotations/instances_{split}2017.json", images="train2017"
    )
    assert np.array_equal(masks_of(objects_at(data, 2))[0], HOLE)
    assert said(lambda: open_source("coco/instances", tmp_path, "val")) == (
        "coco/instances: COCO has no val split, as its val images are `test`; hold out samples of "
        "train with data.holdout=COUNT"
    )


# ---------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("outline", "reason"),
    [
        ([], "it has neither polygons nor run lengths"),
        (0, "it has neither polygons nor run lengths"),
        (None, "it has neither polygons nor run lengths"),
        ([[1, 2, 3, 4]], "a polygon must be a list x, y, x, y, ... of at least 3 corners"),
        ({"size": [5, 5], "counts": [25]}, "its size is [5, 5], that of the image [12, 16]"),
        ({"size": [12, 16], "counts": {"a": 1}}, "it has neither polygons nor run lengths"),
    ],
)
def test_an_outline_that_gives_no_mask(outline: Any, reason: str, tmp_path: Path) -> None:
    data = opened(write(tmp_path, edit(1, segmentation=outline)))
    assert said(lambda: data[1]) == (
        f"{file_of(tmp_path)}: segmentation of annotations[1] gives no mask ({reason}); correct "
        "it, or leave such objects out with malformed='skip'"
    )
    assert len(objects_at(data, 2).labels) == 2
    kept = objects_at(opened(tmp_path, malformed="skip"), 1)
    assert kept.labels.tolist() == [1] and np.array_equal(masks_of(kept), [CROWD])


def test_an_annotation_without_an_outline(tmp_path: Path) -> None:
    write(tmp_path, lambda content: content["annotations"][1].pop("segmentation"))
    assert "annotations[1] gives no mask (it has neither" in said(lambda: opened(tmp_path)[1])


def test_an_object_of_less_than_a_pixel_is_left_out(tmp_path: Path) -> None:
    tiny = [[2.1, 2.1, 2.3, 2.1, 2.3, 2.3]]
    kept = objects_at(opened(write(tmp_path, edit(1, segmentation=tiny))), 1)
    assert kept.labels.tolist() == [1] and len(kept.boxes) == 1


def test_options_are_checked(tmp_path: Path) -> None:
    assert said(lambda: opened(tmp_path, malformed="keep")) == (
        "`malformed` must be 'fail' or 'skip', got 'keep'"
    )
    assert said(lambda: opened(tmp_path, flat="no")).startswith("`flat` must be 'keep', 'skip' or")
