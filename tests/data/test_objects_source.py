"""The source of images with objects: files, orientation, digests, and the way into batches."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stillhouse.batches import Objects
from stillhouse.data import images
from stillhouse.data.embedded.digits import make_multilabel, make_objects
from stillhouse.data.embedded.scenes import make_scenes
from stillhouse.data.holdout import hold_out
from stillhouse.data.images import read_shapes
from stillhouse.data.loader import BatchSampler, Loader
from stillhouse.data.objects.source import ObjectSource
from stillhouse.data.source import targets_of
from stillhouse.data.targets import presence
from stillhouse.data.transforms import Flip
from stillhouse.errors import UserError

MEAN = (0.5, 0.5, 0.5)
SHAPES = [[4, 6], [5, 3], [4, 4]]
BOXES = [[1, 1, 5, 3], [0, 0, 2, 2], [0, 1, 3, 5], [1, 0, 4, 2]]
LABELS, IMAGE = [1, 0, 1, 1], [0, 0, 1, 2]


def said(make: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        make()
    return str(error.value)


def pixels_of(number: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def source(tmp_path: Path) -> ObjectSource:
    for number, (height, width) in enumerate(SHAPES):
        Image.fromarray(pixels_of(number, height, width)).save(tmp_path / f"{number}.png")
    objects = Objects(
        torch.tensor(BOXES).float(), torch.tensor(LABELS), torch.tensor(IMAGE), len(SHAPES)
    )
    paths = tuple(f"{number}.png" for number in range(3))
    return ObjectSource(tmp_path, paths, torch.tensor(SHAPES), objects, ("a", "b"), "toy")


# ------------------------------------------------------------------------------------- orientation


def turned(path: Path, orientation: int, stored: np.ndarray) -> Path:
    """A file that says that its pixels are to be turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"lossless": True} if path.suffix == ".webp" else {}
    Image.fromarray(stored).save(path, exif=exif, **options)
    return path


def upright(orientation: int, stored: np.ndarray) -> np.ndarray:
    """As the standard defines the eight orientations: where the first row and column belong."""
    mirrored = stored[:, ::-1]
    return {
        1: stored,
        2: mirrored,
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: stored[::-1].transpose(1, 0, 2),
        7: mirrored[::-1].transpose(1, 0, 2),
        8: mirrored.transpose(1, 0, 2),
    }[orientation]


def one(path: Path, shape: tuple[int, ...]) -> ObjectSource:
    objects = Objects(torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0).long())
    return ObjectSource(path.parent, (path.name,), torch.tensor([shape]), objects, ("a",), "toy")


@pytest.mark.parametrize("suffix", ["png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_in_the_orientation_of_their_boxes(
    orientation: int, suffix: str, tmp_path: Path
) -> None:
    """Upright as tools show them, or as they are stored if the annotated shape says so."""
    stored = pixels_of(orientation, 4, 6)
    path = turned(tmp_path / f"a.{suffix}", orientation, stored)
    shown = upright(orientation, stored)
    assert read_shapes([path]) == [shown.shape[:2]]
    image = one(path, shown.shape[:2])[0].image
    assert torch.equal(image, torch.from_numpy(shown.copy()).permute(2, 0, 1))
    if orientation >= 5 and suffix != "tiff":  # which Pillow itself turns
        image = one(path, (4, 6))[0].image
        assert torch.equal(image, torch.from_numpy(stored).permute(2, 0, 1))


def test_another_shape_than_the_annotated_is_an_error(source: ObjectSource) -> None:
    wrong = replace(source, shapes=torch.tensor([[4, 6], [5, 3], [4, 5]]))
    assert wrong[1].image.shape == (3, 5, 3)
    assert said(lambda: wrong[2]) == (
        f"{source.root}/2.png has 4 x 4 pixels, but its boxes were annotated on 4 x 5; restore "
        "the image that was annotated, or annotate this one"
    )
    # exchanged sides without an orientation that would explain them
    assert "has 4 x 6 pixels" in said(lambda: one(source.root / "0.png", (6, 4))[0])


def test_shapes_are_read_from_headers_alone(tmp_path: Path) -> None:
    """Of a file without most of its pixels, and of files that are none."""
    for name in ("a.png", "b.jpg", "c.bmp"):
        path = tmp_path / name
        Image.fromarray(pixels_of(0, 64, 48)).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (tmp_path / "d.png").write_bytes(b"")
    paths = [tmp_path / name for name in ("a.png", "b.jpg", "c.bmp", "d.png", "e.png")]
    assert read_shapes(paths) == [(64, 48), (64, 48), (64, 48), (0, 0), (0, 0)]


# ----------------------------------------------------------------------------------------- digests


def test_the_fingerprint_follows_everything_but_pixels_and_place(
    source: ObjectSource, tmp_path: Path
) -> None:
    objects = source.targets
    boxes = objects.boxes.clone()
    boxes[3, 2] += 0.5
    others = [
        replace(source, classes=("a", "c")),
        replace(source, paths=(*source.paths[:2], "./2.png")),
        replace(source, paths=(source.paths[1], source.paths[0], source.paths[2])),
        replace(source, targets=replace(objects, boxes=boxes)),
        replace(source, targets=replace(objects, labels=torch.tensor([1, 0, 1, 0]))),
        replace(source, targets=replace(objects, image=torch.tensor([0, 0, 1, 1]))),
        replace(source, targets=replace(objects, crowd=torch.zeros(4, dtype=torch.bool))),
        replace(source, targets=replace(objects, difficult=torch.zeros(4, dtype=torch.bool))),
        replace(source, shapes=source.shapes.flip(1)),
    ]
    prints = {source.fingerprint, *(other.fingerprint for other in others)}
    assert len(prints) == 1 + len(others)
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in source.paths:
        os.link(source.root / path, moved / path)
    same = replace(source, root=moved, name="other", notes=("a note",))
    assert same.fingerprint == source.fingerprint
    with (source.root / "1.png").open("ab") as file:
        file.write(b"more")
    assert replace(source).fingerprint != source.fingerprint


def test_the_order_of_files_without_objects_counts(source: ObjectSource) -> None:
    none = source.targets.objects(torch.zeros(0, dtype=torch.int64))
    bare = replace(source, targets=none)
    other = replace(bare, paths=bare.paths[::-1], shapes=bare.shapes.flip(0))
    assert other.fingerprint != bare.fingerprint


def test_it_travels_to_other_processes(source: ObjectSource) -> None:
    copy = pickle.loads(pickle.dumps(source))
    assert copy.fingerprint == source.fingerprint and len(copy) == 3


# ----------------------------------------------------------------------------------------- batches


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_hold_the_images_and_their_objects(source: ObjectSource, workers: int) -> None:
    loader = Loader(
        source, BatchSampler(3, 3, True, 1), MEAN, MEAN, transforms=[Flip()], workers=workers
    )
    (batch,) = loader.epoch(0)
    assert batch.images.shape == (3, 3, 5, 6)
    for place, key in enumerate(batch.keys.tolist()):
        height, width = SHAPES[key]
        own = batch.target.objects(batch.target.image == place)
        plain = [BOXES[i] for i in range(4) if IMAGE[i] == key]
        flipped = [[width - x2, y1, width - x1, y2] for x1, y1, x2, y2 in plain]
        assert own.boxes.tolist() in (plain, flipped)
        assert own.labels.tolist() == [LABELS[i] for i in range(4) if IMAGE[i] == key]
        image = batch.images[place, :, :height, :width] * 0.5 + 0.5
        wanted = torch.from_numpy(pixels_of(key, height, width)).permute(2, 0, 1) / 255
        if own.boxes.tolist() != plain:
            wanted = wanted.flip(-1)
        assert torch.allclose(image, wanted, atol=1e-6)


def test_labels_need_no_decoding(source: ObjectSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "decode_image", None)
    rest, held = hold_out(source, 1, seed=0)
    assert (len(rest), len(held)) == (2, 1)
    counts = [len(targets_of(part).labels) for part in (rest, held)]  # type: ignore[union-attr]
    assert sum(counts) == 4
    assert len(source.fingerprint) == 64


# ------------------------------------------------------------------------------------------ scenes


def test_scenes_have_a_box_for_each_visible_digit() -> None:
    source = make_objects("val", 40, seed=3, size=64, cache=True)
    scenes = make_scenes("val", 40, seed=3, size=64, cache=True)
    assert source.name == "digits/objects/val" and source.classes == tuple("0123456789")
    objects: Any = source.targets
    wanted = [
        (i, int(scenes.labels[i, k]), scenes.boxes[i, k].tolist())
        for i in range(40)
        for k in range(scenes.labels.shape[1])
        if scenes.labels[i, k] >= 0
    ]
    parts = (objects.image.tolist(), objects.labels.tolist(), objects.boxes.tolist())
    assert list(zip(*parts, strict=True)) == wanted
    for i, _, box in wanted:  # the extent of an instance
        extents = []
        for k in scenes.instances[i].unique().tolist():
            rows, columns = (scenes.instances[i] == k).nonzero(as_tuple=True)
            low, high = (columns.min(), rows.min()), (columns.max() + 1, rows.max() + 1)
            extents.append([int(x) for x in (*low, *high)])
        assert box in extents
    assert 48 < objects.boxes.max() <= 64 and source.images.shape == (40, 3, 64, 64)


def test_scenes_have_the_classes_of_the_same_scenes_with_labels() -> None:
    boxes, labels = (make("train", 50, cache=True) for make in (make_objects, make_multilabel))
    assert torch.equal(boxes.images, labels.images)
    assert isinstance(labels.targets, torch.Tensor)
    assert torch.equal(presence(boxes.targets, 10).float(), labels.targets)
    assert boxes.fingerprint != make_objects("train", 50, size=40, cache=True).fingerprint
