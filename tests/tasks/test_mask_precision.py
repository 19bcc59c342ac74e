"""Average precision of masks: that of pycocotools, whatever the batches, ranks and padding."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stillhouse.batches import Batch, Objects
from stillhouse.errors import UserError
from stillhouse.tasks.meters.box_precision import BoxPrecision
from stillhouse.tasks.meters.mask_coco import mask_areas
from stillhouse.tasks.meters.mask_precision import MaskPrecision
from stillhouse.tasks.meters.mask_rows import encode_masks, split_codes
from stillhouse.types import Trace

Pixels = np.ndarray
PADDED = (72, 80)  # of the batches


@dataclass
class Shape:
    label: int
    mask: Pixels  # (H, W) bool
    score: float = 0.0
    crowd: bool = False
    difficult: bool = False
    area: float | None = None

    @property
    def size(self) -> float:
        return float(self.mask.sum()) if self.area is None else self.area

    @property
    def box(self) -> list[float]:
        """The tight box."""
        rows, columns = np.nonzero(self.mask)
        if not len(rows):
            return [0, 0, 0, 0]
        return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@dataclass
class Picture:
    key: int
    shape: tuple[int, int] = (64, 72)
    truth: list[Shape] = field(default_factory=list)
    found: list[Shape] = field(default_factory=list)


def disk(shape: tuple[int, int], x: float, y: float, a: float, b: float) -> Pixels:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return ((columns - x) / a) ** 2 + ((rows - y) / b) ** 2 <= 1


def square(shape: tuple[int, int], x1: int, y1: int, x2: int, y2: int) -> Pixels:
    mask = np.zeros(shape, dtype=bool)
    mask[y1:y2, x1:x2] = True
    return mask


def random_pictures(seed: int, count: int = 8, classes: int = 3) -> list[Picture]:
    """Ellipses and detections near them; equal scores, crowds, areas of all sizes, empty masks."""
    chance = np.random.default_rng(seed)
    pictures = []
    for number in range(count):
        shape = (int(chance.integers(40, 73)), int(chance.integers(40, 81)))
        picture = Picture(5 * number % 11 + 100 * number, shape)
        for _ in range(int(chance.integers(5))):
            place = chance.random(2) * shape[::-1]
            axes = chance.random(2) * chance.choice([6, 14, 30]) + 1
            label = int(chance.integers(classes - 1))
            truth = Shape(
                label,
                disk(shape, *place, *axes),
                crowd=bool(chance.random() < 0.2),
                difficult=bool(chance.random() < 0.1),
                area=float(chance.choice([500, 3000, 20000])) if chance.random() < 0.5 else None,
            )
            if not truth.mask.any():
                continue
            picture.truth.append(truth)
            for _ in range(int(chance.integers(4))):
                near = place + chance.normal(0, 2, 2)
                wide = axes * chance.uniform(0.8, 1.3, 2)
                other = label if chance.random() < 0.8 else int(chance.integers(classes))
                score = int(chance.integers(11)) / 10
                picture.found.append(Shape(other, disk(shape, *near, *wide), score))
        picture.found.append(Shape(0, square(shape, 3, 3, 3, 9), 0.5))  # no pixel
        pictures.append(picture)
    pictures[-1].truth.clear()
    pictures[-2].found.clear()
    return pictures


# ----------------------------------------------------------------------------------------- batches


def tensor(rows: Sequence[Any], *shape: int, dtype: torch.dtype = torch.double) -> Tensor:
    return torch.tensor(np.array(rows), dtype=dtype).reshape(len(rows), *shape)


def padded(masks: Sequence[Pixels], fill: bool = False) -> Tensor:
    """Masks at the size of the batch."""
    whole = torch.full((len(masks), *PADDED), fill)
    for canvas, mask in zip(whole, masks, strict=True):
        canvas[: mask.shape[0], : mask.shape[1]] = torch.from_numpy(mask)
    return whole


def objects_of(rows: Sequence[tuple[int, Shape]], images: int, scored: bool) -> Objects:
    shapes = [one for _, one in rows]
    flags: dict[str, Any] = {
        "crowd": tensor([one.crowd for one in shapes], dtype=torch.bool),
        "difficult": tensor([one.difficult for one in shapes], dtype=torch.bool),
        "area": tensor([one.size for one in shapes]),
    }
    return Objects(
        tensor([one.box for one in shapes], 4),
        tensor([one.label for one in shapes], dtype=torch.long),
        tensor([index for index, _ in rows], dtype=torch.long),
        images,
        masks=padded([one.mask for one in shapes], fill=scored),  # the padding does not count
        **({"scores": tensor([one.score for one in shapes])} if scored else flags),
    )


def batch_of(pictures: Sequence[Picture]) -> tuple[Trace, Batch[Objects]]:
    truth = [(index, one) for index, p in enumerate(pictures) for one in p.truth]
    found = [objects_of([(0, one) for one in p.found], 1, True) for p in pictures]
    keys = torch.tensor([picture.key for picture in pictures])
    return Trace(found), Batch(
        torch.zeros(len(pictures), 1, *PADDED),
        objects_of(truth, len(pictures), False),
        keys,
        torch.zeros_like(keys),
        sizes=torch.tensor([picture.shape for picture in pictures]),
    )


def segment(trace: Trace, batch: Batch[Objects]) -> Iterator[Objects]:
    """A network that says its instances."""
    yield from trace.out


def measure(
    pictures: Sequence[Picture], classes: int | None = 3, batch: int = 3, boundary: bool = False
) -> MaskPrecision:
    meter = MaskPrecision(classes, segment, boundary)
    for first in range(0, len(pictures), batch):
        meter.update(*batch_of(pictures[first : first + batch]))
    return meter


def merged(*meters: MaskPrecision) -> MaskPrecision:
    """A meter with the rows of several ranks, one after another."""
    whole = MaskPrecision(meters[0].classes, segment, meters[0].boundary)
    states = [meter.state() for meter in meters]
    assert set(states[0]) == whole.rows
    whole.load({name: torch.cat([state[name] for state in states]) for name in states[0]})
    return whole


# ------------------------------------------------------------------------------------- pycocotools


def reference(pictures: Sequence[Picture], classes: int = 3, boundary: bool = False) -> Any:
    """The finished evaluation of pycocotools; IoU with boundaries is computed here, in loops."""
    from pycocotools import mask as library
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    class Boundaries(COCOeval):  # type: ignore[misc]
        def computeIoU(self, key: int, label: int) -> Any:
            ious = super().computeIoU(key, label)
            if not len(ious):
                return ious
            truth, found = self._gts[key, label], self._dts[key, label]
            found = [found[i] for i in np.argsort([-d["score"] for d in found], kind="mergesort")]
            for i, detection in enumerate(found[: self.params.maxDets[-1]]):
                for j, thing in enumerate(truth):
                    if not thing["iscrowd"]:
                        ious[i, j] = min(
                            ious[i, j], boundary_iou(detection["pixels"], thing["pixels"])
                        )
            return ious

    def annotated(scored: bool) -> list[dict[str, Any]]:
        return [
            {
                "image_id": picture.key,
                "category_id": one.label,
                "segmentation": library.encode(np.asfortranarray(one.mask.astype(np.uint8))),
                "pixels": one.mask,
                "area": 1e12 if one.difficult else one.size,
                "iscrowd": int(one.crowd),
                "score": one.score,
            }
            for picture in pictures
            for one in (picture.found if scored else picture.truth)
        ]

    truth, found = COCO(), COCO()
    for coco, rows in ((truth, annotated(False)), (found, annotated(True))):
        coco.dataset = {
            "images": [{"id": p.key, "height": p.shape[0], "width": p.shape[1]} for p in pictures],
            "categories": [{"id": label} for label in range(classes)],
            "annotations": [{"id": index + 1, **row} for index, row in enumerate(rows)],
        }
    with contextlib.redirect_stdout(io.StringIO()):
        for coco in (truth, found):
            coco.createIndex()
        evaluation = (Boundaries if boundary else COCOeval)(truth, found, "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def border(mask: Pixels) -> Pixels:
    """The pixels of a mask that as many erosions remove as 2 % of the diagonal has pixels."""
    height, width = mask.shape
    inner = mask
    for _ in range(max(1, round(0.02 * float(np.hypot(height, width))))):
        around = np.pad(inner, 1)
        windows = [around[y : y + height, x : x + width] for y in range(3) for x in range(3)]
        inner = np.logical_and.reduce(windows)
    return mask & ~inner


def boundary_iou(one: Pixels, other: Pixels) -> float:
    one, other = border(one), border(other)
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 0.0


def close(ours: Any, theirs: Any) -> None:
    precision = theirs.eval["precision"][..., 0, -1]
    np.testing.assert_allclose(ours.stats.nan_to_num(-1), theirs.stats, rtol=0, atol=5e-16)
    np.testing.assert_allclose(ours.precision.nan_to_num(-1), precision, rtol=0, atol=5e-16)


@pytest.mark.parametrize("seed", range(12))
def test_numbers_are_those_of_pycocotools_to_the_last_digit(seed: int) -> None:
    pictures = random_pictures(seed)
    meter = measure(pictures)
    close(meter.result(), reference(pictures))
    assert 0.02 < meter.result().stats[0] < 0.98


@pytest.mark.parametrize("seed", range(4))
def test_boundaries_are_compared_as_by_loops(seed: int) -> None:
    pictures = random_pictures(seed)
    theirs = reference(pictures, boundary=True)
    summary = measure(pictures, boundary=True).summary()
    assert summary["boundary_ap"] == pytest.approx(100 * theirs.stats[0], abs=1e-12)
    assert summary["boundary_ap"] < summary["ap"]
    assert "boundary_ap" not in measure(pictures).summary()


def test_box_ap_is_that_of_the_boxes() -> None:
    pictures = random_pictures(3)
    boxes = BoxPrecision(3, lambda trace, batch: trace.out)
    for picture in pictures:
        trace, batch = batch_of([picture])
        boxes.update(Trace(trace.out[0]), batch)
    meter = measure(pictures)
    assert meter.summary()["box_ap"] == boxes.summary()["ap"]
    assert torch.equal(meter.collected().detections.box, boxes.collected().detections.box)


# --------------------------------------------------------------------------------------- hand-made


def test_hand_made_precision() -> None:
    """Two objects with one box; the first detection has the second's mask at IoU .75."""
    shape = (64, 72)
    upper = np.tril(np.ones((40, 40), dtype=bool))
    one, other = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    one[10:50, 10:50], other[10:50, 10:50] = upper, upper[::-1, ::-1]
    part = square(shape, 10, 10, 50, 30)
    truth = [Shape(0, part), Shape(0, square(shape, 52, 0, 72, 60))]
    found = [Shape(0, square(shape, 10, 10, 50, 25), 0.9), Shape(0, one, 0.8), Shape(1, other, 0.7)]
    summary = measure([Picture(1, shape, truth, found)], 2).summary()
    # the first is right at IoUs up to .75, the second never: precision 1 at 51 of 101 recalls
    assert summary["ap50"] == pytest.approx(100 * 51 / 101)
    assert summary["ap"] == pytest.approx(100 * 51 / 101 * 6 / 10)
    assert summary["ar100"] == pytest.approx(100 * 1 / 2 * 6 / 10)
    assert (summary["objects"], summary["detections"]) == (2, 3)
    assert set(summary) == {
        *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ar1", "ar10", "ar100"),
        *("box_ap", "objects", "detections"),
    }


def test_equal_boxes_do_not_make_equal_masks() -> None:
    shape = (64, 72)
    cross = square(shape, 30, 5, 34, 60) | square(shape, 5, 30, 60, 34)
    whole = square(shape, 5, 5, 60, 60)
    summary = measure([Picture(1, shape, [Shape(0, cross)], [Shape(0, whole, 0.9)])], 1).summary()
    assert summary["box_ap"] == 100 and summary["ap50"] == 0


def test_a_crowd_takes_several_detections() -> None:
    shape = (64, 72)
    mine, crowd = square(shape, 0, 0, 20, 20), square(shape, 30, 0, 70, 60)
    inside = [square(shape, 32 + 9 * i, 5, 40 + 9 * i, 20) for i in range(3)]
    found = [*(Shape(0, mask, 0.9) for mask in inside), Shape(0, mine, 0.8)]
    meter = measure([Picture(1, shape, [Shape(0, mine), Shape(0, crowd, crowd=True)], found)], 1)
    assert meter.summary()["ap"] == pytest.approx(100)
    assert meter.summary()["objects"] == 1


def test_precision_of_each_class_and_its_curve() -> None:
    meter = measure(random_pictures(5), classes=None)
    assert list(meter.per_class()) == [0, 1] == list(meter.curves())
    mean = sum(meter.per_class().values()) / 2
    assert meter.summary()["ap"] == pytest.approx(mean, abs=1e-12)
    for label, curve in meter.curves().items():
        assert len(curve.recall) == len(curve.precision) == 101
        wanted = meter.result().precision[0, :, label]
        assert torch.equal(curve.precision, wanted)


# ------------------------------------------------------------------------------------------- ranks


def test_scores_do_not_depend_on_batches_and_ranks_bit_for_bit() -> None:
    pictures = random_pictures(1, count=11)
    expected = measure(pictures, batch=11, boundary=True).summary()
    assert measure(pictures, batch=1, boundary=True).summary() == expected
    shares = [measure(pictures[rank::3], batch=2, boundary=True) for rank in (2, 0, 1)]
    empty = MaskPrecision(3, segment, True)
    assert merged(empty, *shares, empty).summary() == expected
    assert measure(pictures[::-1], boundary=True).summary() == expected


def test_an_image_that_was_evaluated_twice_counts_once() -> None:
    pictures = random_pictures(2)
    expected = measure(pictures).summary()
    twice = measure([*pictures, *pictures[:5]], batch=4)
    assert twice.summary() == expected
    rank = measure(pictures[3:7])
    assert merged(rank, twice, rank).summary() == expected


def test_different_images_with_one_key_are_refused() -> None:
    one, other = (Picture(4, truth=[Shape(0, square((64, 72), 0, 0, n, 9))]) for n in (5, 6))
    with pytest.raises(UserError, match="different objects have the key 4; give each image"):
        measure([one, other]).summary()


def test_the_state_is_small_and_can_be_stored(tmp_path: Any) -> None:
    meter = measure(random_pictures(0))
    state = meter.state()
    assert set(state) == meter.rows
    pixels = sum(p.mask.size for picture in random_pictures(0) for p in picture.truth)
    assert state["objects.code"].dtype == torch.uint8
    assert len(state["objects.code"]) == int(state["objects.length"].sum()) < pixels / 20
    torch.save(dict(state), tmp_path / "state.pt")
    other = MaskPrecision(3, segment)
    other.load(torch.load(tmp_path / "state.pt", weights_only=True))
    assert other.summary() == meter.summary()
    empty = MaskPrecision(3, segment).state()
    assert {name: (x.dtype, x.shape[1:]) for name, x in empty.items()} == {
        name: (x.dtype, x.shape[1:]) for name, x in state.items()
    }
    assert all(len(column) == 0 for column in empty.values())


def test_a_summary_is_plain_numbers_and_changes_with_more_images() -> None:
    pictures = random_pictures(4)
    meter = measure(pictures[:3])
    before = meter.summary()
    meter.update(*batch_of(pictures[3:]))
    assert meter.summary() == measure(pictures).summary() != before
    json.dumps(meter.summary())


# ------------------------------------------------------------------------------------- image sizes


def test_without_sizes_the_whole_image_counts() -> None:
    pictures = [
        Picture(
            key,
            PADDED,
            [Shape(0, disk(PADDED, 30, 30, 9, 12))],
            [Shape(0, disk(PADDED, 31, 30, 9, 12), 0.5)],
        )
        for key in range(3)
    ]
    trace, batch = batch_of(pictures)
    meter = MaskPrecision(3, segment)
    meter.update(trace, replace(batch, sizes=None))
    assert meter.summary() == measure(pictures).summary()
    assert meter.masks().size.tolist() == [list(PADDED)] * 3


@pytest.mark.parametrize("annotated", [True, False])
def test_areas_are_those_of_the_images_as_read(annotated: bool) -> None:
    """An image that was made half as high and a third as wide: 1/6 of the pixels."""
    shape, mask = (60, 60), square((60, 60), 0, 0, 20, 20)
    area = 777.0 if annotated else None
    trace, batch = batch_of([Picture(1, shape, [Shape(0, mask, area=area)], [Shape(0, mask, 0.9)])])
    if not annotated:
        batch = replace(batch, target=replace(batch.target, area=None))
    meter = MaskPrecision(1, segment)
    meter.update(trace, replace(batch, originals=torch.tensor([[120, 180]])))
    assert meter.collected().objects.area.tolist() == [777.0 if annotated else 2400.0]
    assert mask_areas(meter.masks()).tolist() == [2400.0]
    assert ("ap_small" in meter.summary()) == annotated
    assert ("ap_medium" in meter.summary()) == (not annotated)
    assert meter.collected().detections.box.tolist() == [[0, 0, 60, 40]]


# ------------------------------------------------------------------------------- nothing, mistakes


def test_images_without_objects_or_detections() -> None:
    shape = (64, 72)
    empty = Picture(3, shape)
    summary = measure([empty, Picture(5, shape)], 2, boundary=True).summary()
    assert summary["ap"] == summary["boundary_ap"] == summary["box_ap"] == 0
    assert (summary["objects"], summary["detections"]) == (0, 0)
    hit = Picture(
        1, shape, [Shape(0, square(shape, 0, 0, 9, 9))], [Shape(0, square(shape, 0, 0, 9, 9), 1)]
    )
    assert measure([empty, hit]).summary()["ap"] == pytest.approx(100)
    none = MaskPrecision(2, segment, True)
    assert none.summary()["ap"] == 0 and none.per_class() == {}


def test_an_empty_mask_is_a_wrong_detection() -> None:
    shape = (64, 72)
    mine = Shape(0, square(shape, 0, 0, 9, 9))
    right, empty = replace(mine, score=0.5), Shape(0, np.zeros(shape, dtype=bool), 0.9)
    summary = measure([Picture(1, shape, [mine], [empty, right])], 1, boundary=True).summary()
    assert summary["ap"] == summary["boundary_ap"] == pytest.approx(50)


def test_batches_without_a_target_are_left_out() -> None:
    trace, batch = batch_of(random_pictures(0))
    meter = MaskPrecision(3, segment)
    meter.update(trace, replace(batch, target=None))
    assert meter.summary()["detections"] == 0 and not len(meter.state()["images"])


def test_detections_that_are_not_finite_are_left_out() -> None:
    pictures = random_pictures(6)
    expected = measure(pictures).summary()
    for score in (float("nan"), float("inf")):
        extra = Shape(0, disk(pictures[0].shape, 20, 20, 5, 5), score)
        changed = replace(pictures[0], found=[extra, *pictures[0].found])
        assert measure([changed, *pictures[1:]]).summary() == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"masks": None}, "the detections lack scores or masks; set `scores` and `masks` of each"),
        ({"scores": None}, "the detections lack scores or masks; set `scores` and `masks` of each"),
        ({"labels": torch.tensor([7])}, "the class index of a detection is 7; number classes from"),
        (
            {"masks": torch.zeros(1, 20, 80).bool()},
            "masks have 20 x 80 pixels, but their image has 64 x 72; give them the size of the ",
        ),
    ],
)
def test_instances_that_cannot_be(change: dict[str, Any], message: str) -> None:
    trace, batch = batch_of([Picture(1, found=[Shape(0, square((64, 72), 0, 0, 9, 9), 0.5)])])
    with pytest.raises(UserError) as error:
        MaskPrecision(3, segment).update(Trace([replace(trace.out[0], **change)]), batch)
    assert str(error.value).startswith(message)


def test_objects_without_masks_are_refused() -> None:
    trace, batch = batch_of(random_pictures(0))
    with pytest.raises(UserError, match="needs the masks of objects, but the data have boxes only"):
        MaskPrecision(3, segment).update(
            trace, replace(batch, target=replace(batch.target, masks=None))
        )


def test_codes_are_those_of_pycocotools() -> None:
    from pycocotools import mask as library

    masks = np.stack(
        [picture.truth[0].mask[:40, :40] for picture in random_pictures(1) if picture.truth]
    )
    codes = split_codes(encode_masks(torch.from_numpy(masks), (40, 40)))
    wanted = [library.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"] for mask in masks]
    assert codes == wanted
    part = split_codes(encode_masks(torch.from_numpy(masks), (31, 17)))
    assert part == [
        library.encode(np.asfortranarray(mask[:31, :17].astype(np.uint8)))["counts"]
        for mask in masks
    ]
    assert split_codes(encode_masks(torch.from_numpy(masks[:0]), (40, 40))) == []
