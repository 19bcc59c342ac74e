"""The meter of detection: rows of any order, images of any size, and batches without anything."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from detection_cases import Found, Scene, Truth, batch_of, detect, measure, random_scenes
from stillhouse.batches import Objects
from stillhouse.errors import UserError
from stillhouse.tasks.meters.box_precision import BoxPrecision
from stillhouse.types import Trace

A, B = [0.0, 0, 40, 40], [100.0, 100, 140, 140]
ALWAYS = {"ap", "ap50", "ap75", "ar1", "ar10", "ar100", "objects", "detections"}
every = pytest.mark.parametrize("protocol", ["coco", "voc", "voc07"])


def merged(*meters: BoxPrecision) -> BoxPrecision:
    """A meter with the rows of several ranks, one after another."""
    whole = BoxPrecision(meters[0].classes, detect, meters[0].protocol)
    states = [meter.state() for meter in meters]
    assert set(states[0]) == whole.rows
    whole.load({name: torch.cat([state[name] for state in states]) for name in states[0]})
    return whole


# ------------------------------------------------------------------------------------------- ranks


@every
def test_scores_do_not_depend_on_batches_and_ranks_bit_for_bit(protocol: Any) -> None:
    scenes = random_scenes(1, images=14, crowded=40)
    expected = measure(scenes, protocol=protocol, batch=14)
    assert measure(scenes, protocol=protocol, batch=1).summary() == expected.summary()
    shares = [measure(scenes[rank::3], protocol=protocol, batch=2) for rank in (2, 0, 1)]
    empty = BoxPrecision(4, detect, protocol)
    assert merged(empty, *shares, empty).summary() == expected.summary()
    assert measure(scenes[::-1], protocol=protocol).summary() == expected.summary()


def test_rows_in_any_order_are_put_in_order() -> None:
    whole = measure(random_scenes(2))
    state, order = dict(whole.state()), torch.Generator().manual_seed(0)
    for table in ("images", "detections", "objects"):
        names = [name for name in state if name.partition(".")[0] == table]
        shuffled = torch.randperm(len(state[names[0]]), generator=order)
        state |= {name: state[name][shuffled] for name in names}
    other = BoxPrecision(4, detect)
    other.load(state)
    assert other.summary() == whole.summary()
    assert torch.equal(other.collected().detections.box, whole.collected().detections.box)


@every
def test_an_image_that_was_evaluated_twice_counts_once(protocol: Any) -> None:
    scenes = random_scenes(4)
    expected = measure(scenes, protocol=protocol).summary()
    twice = measure(scenes + scenes[:5], protocol=protocol, batch=4)
    assert twice.summary() == expected
    rank = measure(scenes[3:8], protocol=protocol)
    assert merged(rank, twice, rank).summary() == expected


def test_of_unequal_evaluations_of_an_image_one_is_taken_whatever_their_order() -> None:
    truth = [Truth(0, A), Truth(0, B)]
    one = measure([Scene(3, truth, [Found(0, 0.9, A), Found(0, 0.8, B)])])
    other = measure([Scene(3, truth, [Found(0, 0.7, [60, 60, 90, 90])])])
    summary = merged(one, other).summary()
    assert summary == merged(other, one).summary()
    assert summary["objects"] == 2
    assert summary["detections"] == 2


@pytest.mark.parametrize("objects", [[], [Truth(1, B)], [Truth(1, A), Truth(1, A)]])
def test_different_images_with_one_key_are_refused(objects: list[Truth]) -> None:
    meter = measure([Scene(5, [Truth(1, A)]), Scene(8, objects), Scene(8, [Truth(1, A)])], batch=1)
    with pytest.raises(UserError, match="different objects have the key 8; give each image"):
        meter.summary()


def test_equal_objects_of_one_image_count_each() -> None:
    assert measure([Scene(1, [Truth(0, A), Truth(0, A)], [])]).summary()["objects"] == 2


def test_an_empty_state_has_the_columns_of_a_full_one() -> None:
    empty, full = BoxPrecision(4, detect).state(), measure(random_scenes(0)).state()
    assert {name: (x.dtype, x.shape[1:]) for name, x in empty.items()} == {
        name: (x.dtype, x.shape[1:]) for name, x in full.items()
    }
    assert all(len(column) == 0 for column in empty.values())


# -------------------------------------------------------------------------------------- image sizes


def resized(original: Tensor, size: Tensor, padded: bool) -> BoxPrecision:
    """Images of (N, 2) originals that were resized to (N, 2), then padded or not."""
    scenes = random_scenes(6)
    trace, batch = batch_of(scenes)
    scale = (size / original).double().flip(1).repeat(1, 2)
    target = batch.target
    found = replace(trace.out, boxes=trace.out.boxes * scale[trace.out.image])
    batch = replace(
        batch,
        images=torch.zeros(len(scenes), 1, *([320, 640] if padded else size[0].tolist())),
        target=replace(target, boxes=target.boxes * scale[target.image]),
        originals=original,
        sizes=size if padded else None,
    )
    meter = BoxPrecision(4, detect)
    meter.update(Trace(found), batch)
    return meter


@pytest.mark.parametrize("padded", [True, False])
def test_boxes_are_compared_in_pixels_of_the_images_as_they_were_read(padded: bool) -> None:
    original = torch.tensor([[160, 200]]).repeat(12, 1)
    size = torch.tensor([[320, 100]]).repeat(12, 1)  # high and narrow
    if padded:
        size[::2] = torch.tensor([80, 400])
    expected, meter = measure(random_scenes(6)), resized(original, size, padded)
    assert torch.equal(meter.collected().detections.box, expected.collected().detections.box)
    assert meter.summary() == expected.summary()


def test_without_a_size_as_read_boxes_stay_and_padding_does_not_matter() -> None:
    trace, batch = batch_of(random_scenes(6))
    meter = BoxPrecision(4, detect)
    meter.update(trace, replace(batch, sizes=torch.full((12, 2), 150)))
    assert meter.summary() == measure(random_scenes(6)).summary()


def test_areas_of_objects_are_in_pixels_as_read_annotated_or_not() -> None:
    truth = Objects(torch.tensor([[0.0, 0, 40, 40]]), torch.tensor([0]), torch.tensor([0]))
    for area, expected in ((None, 80.0), (torch.tensor([1600.0]), 1600.0)):
        _, batch = batch_of([Scene(0)])
        batch = replace(
            batch,
            target=replace(truth, area=area),
            originals=torch.tensor([[80, 20]]),  # the image is 160 x 200
        )
        meter = BoxPrecision(1, detect)
        meter.update(Trace(replace(truth, scores=torch.tensor([0.5]))), batch)
        assert meter.collected().objects.area.tolist() == [expected]
        assert meter.collected().objects.box.tolist() == [[0, 0, 4, 20]]


# ------------------------------------------------------------------------- nothing, and not finite


@every
@pytest.mark.parametrize(
    "scenes",
    [
        [],
        [Scene(0), Scene(1)],
        [Scene(0, [Truth(1, A)])],
        [Scene(0, [], [Found(1, 0.5, A)])],
        [Scene(0, [Truth(1, A, difficult=True)], [Found(1, 0.5, A)])],
        [Scene(0, [Truth(1, A, crowd=True)])],
    ],
    ids=["nothing", "empty images", "no detection", "no object", "only difficult", "only crowds"],
)
def test_precision_is_zero_where_nothing_can_be_right(
    protocol: Any, scenes: list[Scene], capfd: pytest.CaptureFixture[str]
) -> None:
    meter = measure(scenes, protocol=protocol)
    summary = meter.summary()
    assert summary["ap"] == 0
    json.dumps(dict(summary), allow_nan=False)
    assert capfd.readouterr() == ("", "")
    counted = [one for scene in scenes for one in scene.truth if not (one.crowd or one.difficult)]
    assert summary["objects"] == len(counted)
    assert set(meter.per_class()) == set(meter.curves()) == {one.label for one in counted}


def test_sizes_without_objects_are_left_out() -> None:
    summary = measure([Scene(0, [Truth(1, A)], [Found(1, 0.5, A)])]).summary()
    assert summary.keys() == ALWAYS | {"ap_medium"}
    assert measure([]).summary().keys() == ALWAYS


@every
def test_an_image_without_objects_counts_for_its_detections(protocol: Any) -> None:
    right = Scene(0, [Truth(0, A)], [Found(0, 0.5, A)])
    wrong = Scene(1, [], [Found(0, 0.9, A)])
    assert measure([right], protocol=protocol).summary()["ap"] == pytest.approx(100)
    assert measure([right, wrong], protocol=protocol).summary()["ap"] == pytest.approx(50)


def test_batches_without_a_target_are_left_out() -> None:
    meter = measure([Scene(0, [Truth(0, A)], [Found(0, 0.5, A)])])
    trace, batch = batch_of([Scene(1, [], [Found(0, 0.9, A)])])
    without: Any = replace(cast(Any, batch), target=None)
    meter.update(trace, without)
    assert meter.summary()["ap"] == pytest.approx(100)
    assert meter.summary()["detections"] == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["scores", "boxes"])
def test_detections_that_are_not_finite_are_left_out(where: str, value: float) -> None:
    scene = Scene(0, [Truth(0, A)], [Found(0, 0.9, B), Found(0, 0.5, A)])
    trace, batch = batch_of([scene])
    getattr(trace.out, where)[0] = value
    meter = BoxPrecision(1, detect)
    meter.update(trace, batch)
    assert meter.summary()["ap"] == pytest.approx(100)
    assert meter.summary()["detections"] == 1


@every
def test_an_inverted_detection_is_wrong(protocol: Any) -> None:
    found = [Found(0, 0.9, [140, 100, 100, 140]), Found(0, 0.8, [40, 40, 0, 0]), Found(0, 0.5, A)]
    meter = measure([Scene(0, [Truth(0, A)], found)], protocol=protocol)
    assert meter.summary()["ap"] == pytest.approx(100 / 3)


def test_half_precision_is_kept_exactly() -> None:
    trace, batch = batch_of([Scene(0, [Truth(0, A)], [Found(0, 0.9, A)])])
    half = replace(trace.out, boxes=trace.out.boxes.half(), scores=trace.out.scores.bfloat16())
    meter = BoxPrecision(1, detect)
    meter.update(Trace(half), batch)
    assert meter.state()["detections.score"].tolist() == [0.8984375]
    assert meter.summary()["ap"] == pytest.approx(100)


def test_scores_follow_what_is_added_and_loaded() -> None:
    meter = measure([Scene(0, [Truth(0, A)], [Found(0, 0.5, A)])])
    before = meter.summary()
    meter.update(*batch_of([Scene(1, [Truth(0, A)])]))
    assert before["ap"] == pytest.approx(100)
    assert meter.summary()["ap"] < 51
    meter.load(measure([Scene(0, [Truth(0, A)], [Found(0, 0.5, A)])]).state())
    assert meter.summary() == before


# -------------------------------------------------------------------------------------- bad inputs


def test_detections_need_scores() -> None:
    trace, batch = batch_of([Scene(0, [Truth(0, A)], [Found(0, 0.9, A)])])
    with pytest.raises(UserError, match="the detections have no scores; set `scores`"):
        BoxPrecision(1, detect).update(Trace(replace(trace.out, scores=None)), batch)


@pytest.mark.parametrize("label", [-1, 4])
def test_class_indices_are_those_of_the_data(label: int) -> None:
    message = f"is {label}; number classes from 0 to 3"
    with pytest.raises(UserError, match=f"class index of an object {message}"):
        measure([Scene(0, [Truth(label, A)])])
    with pytest.raises(UserError, match=f"class index of a detection {message}"):
        measure([Scene(0, [], [Found(label, 0.5, A)])])


@every
def test_the_number_of_classes_may_be_unknown(protocol: Any) -> None:
    known = measure(random_scenes(7), protocol=protocol)
    unknown = measure(random_scenes(7), None, protocol)
    assert unknown.summary() == known.summary()
    assert unknown.per_class() == known.per_class()
    assert measure([Scene(0)], None, protocol).summary()["ap"] == 0
    with pytest.raises(UserError, match="class index of an object is -1; number classes from 0$"):
        measure([Scene(0, [Truth(-1, A)])], None, protocol)
