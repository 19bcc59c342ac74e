"""Kinds of errors and what they cost, by hand; the AP50 that they are taken from is COCO's."""

from __future__ import annotations

import pytest

from detection_cases import Box, Found, Scene, Truth, measure, overlap, random_scenes
from stillhouse.engine.evaluate import errors_of
from stillhouse.tasks.meters.accuracy import Accuracy
from stillhouse.tasks.meters.detection_errors import (
    KINDS,
    MISSED,
    DetectionErrors,
    detection_errors,
)

A: Box = [0, 0, 40, 40]
B: Box = [100, 100, 140, 140]
BESIDE_A: Box = [20, 0, 60, 40]  # its IoU with A is 1/3
NEAR_A: Box = [0, 0, 40, 30]  # 3/4
FAR: Box = [60, 100, 90, 130]


def errors(truth: list[Truth], found: list[Found], classes: int = 2) -> DetectionErrors:
    return detection_errors(measure([Scene(4, truth, found)], classes).collected(), classes)


def check(got: DetectionErrors, ap50: float, **expected: tuple[int, float]) -> None:
    """Numbers and costs of kinds in percent; those not named are 0."""
    none = (0, 0.0)
    assert got.ap50 == pytest.approx(ap50)
    assert got.counts == {kind: expected.get(kind, none)[0] for kind in (*KINDS, MISSED)}
    costs = {kind: expected.get(kind, none)[1] for kind in (*KINDS, MISSED)}
    assert got.costs == pytest.approx(costs, abs=1e-9)


# -------------------------------------------------------------------------- one kind after another


def test_right_detections_are_no_errors() -> None:
    check(errors([Truth(0, A), Truth(1, B)], [Found(0, 0.2, NEAR_A), Found(1, 0.9, B)]), 100)


def test_a_wrong_class_costs_precision_there_and_the_object_here() -> None:
    # class 0 has nothing; class 1 has a wrong detection before a right one
    got = errors([Truth(0, A), Truth(1, B)], [Found(1, 0.9, NEAR_A), Found(1, 0.8, B)])
    check(got, (0 + 50) / 2, **{"class": (1, 75)})


def test_a_wrong_box() -> None:
    check(errors([Truth(0, A)], [Found(0, 0.9, BESIDE_A)]), 0, localisation=(1, 100))


def test_a_wrong_class_and_a_wrong_box() -> None:
    # without the wrong detection class 1 is perfect; class 0 has no detection in any case
    got = errors([Truth(0, A), Truth(1, B)], [Found(1, 0.9, BESIDE_A), Found(1, 0.8, B)])
    check(got, (0 + 50) / 2, both=(1, 25), missed=(1, 0))


def test_a_second_detection_of_an_object() -> None:
    found = [Found(0, 0.9, A), Found(0, 0.8, NEAR_A), Found(0, 0.7, B)]
    ap50 = 100 * (51 + 50 * 2 / 3) / 101  # precision 1 up to recall .5, then 2/3
    check(errors([Truth(0, A), Truth(0, B)], found), ap50, duplicate=(1, 100 - ap50))


@pytest.mark.parametrize("label", [0, 1])
def test_a_detection_of_nothing(label: int) -> None:
    truth = [Truth(0, A), Truth(1, B)]
    found = [Found(label, 0.9, FAR), Found(0, 0.8, A), Found(1, 0.8, B)]
    check(errors(truth, found), 75, background=(1, 25))


def test_a_missed_object() -> None:
    ap50 = 100 * 51 / 101
    got = errors([Truth(0, A), Truth(0, B)], [Found(0, 0.9, A)])
    check(got, ap50, missed=(1, 100 - ap50))


def test_an_object_that_a_correctable_error_points_at_is_not_missed() -> None:
    assert errors([Truth(0, A)], [Found(0, 0.9, BESIDE_A)]).counts[MISSED] == 0
    assert errors([Truth(0, A)], [Found(1, 0.9, A)]).counts[MISSED] == 0
    assert errors([Truth(0, A)], [Found(1, 0.9, BESIDE_A)]).counts[MISSED] == 1


# ---------------------------------------------------------------------------------- several at once


def test_of_two_wrong_boxes_of_an_object_the_better_is_corrected_and_the_other_removed() -> None:
    found = [Found(0, 0.9, BESIDE_A), Found(0, 0.8, [0, 20, 40, 60])]
    check(errors([Truth(0, A)], found), 0, localisation=(2, 100))


def test_a_wrong_box_of_an_object_that_has_a_detection_is_removed() -> None:
    found = [Found(0, 0.9, BESIDE_A), Found(0, 0.8, A)]
    check(errors([Truth(0, A)], found), 50, localisation=(1, 50))


def test_a_removed_detection_does_not_find_another_object() -> None:
    found = [Found(0, 0.9, A), Found(0, 0.8, BESIDE_A)]
    ap50 = 100 * 51 / 101
    got = errors([Truth(0, A), Truth(0, B)], found)
    check(got, ap50, localisation=(1, 0), missed=(1, 100 - ap50))


def test_of_a_wrong_box_and_a_wrong_class_only_the_better_is_corrected() -> None:
    truth = [Truth(0, A), Truth(1, B)]
    found = [Found(0, 0.9, BESIDE_A), Found(1, 0.8, A), Found(1, 0.7, B)]
    # the box corrected: class 0 perfect; the other removed: class 1 perfect
    check(errors(truth, found), 25, localisation=(1, 50), **{"class": (1, 25)})


@pytest.mark.parametrize(
    ("other", "own", "kind"),
    [
        (A, [25.0, 0, 65, 40], "localisation"),  # of its class 1/4, of the other one 3/4
        ([0.0, 0, 40, 28], A, "class"),  # of its class 3/4, but taken
    ],
)
def test_the_first_kind_that_applies_is_taken(other: Box, own: Box, kind: str) -> None:
    truth = [Truth(0, other), Truth(1, own)]
    found = [Found(0, 0.99, other), Found(1, 0.98, own), Found(1, 0.5, NEAR_A)]
    counts = errors(truth, found).counts
    assert counts == dict.fromkeys((*KINDS, MISSED), 0) | {kind: 1}


@pytest.mark.parametrize("kind", ["crowd", "difficult"])
def test_ignored_objects_are_neither_missed_nor_pointed_at(kind: str) -> None:
    truth = [Truth(0, A), Truth(0, B, **{kind: True})]
    check(errors(truth, [Found(0, 0.9, B), Found(0, 0.8, A)]), 100)
    check(errors(truth, [Found(0, 0.8, A)]), 100)
    check(errors(truth, [Found(1, 0.9, B), Found(0, 0.8, A)]), 100, background=(1, 0))


@pytest.mark.parametrize("width", [3.5, 4.0, 19.75, 20.0])
def test_the_borders_are_a_tenth_and_a_half(width: float) -> None:
    """The detection is the part of A of this width, so its IoU is width / 40."""
    kind = "background" if width < 4 else "localisation" if width < 20 else None
    counts = errors([Truth(0, A)], [Found(0, 0.9, [0, 0, width, 40])]).counts
    assert {name for name, count in counts.items() if count and name != MISSED} == {kind} - {None}
    other = errors([Truth(1, A)], [Found(0, 0.9, [0, 0, width, 40])]).counts
    expected = {None: "class", "localisation": "both", "background": "background"}[kind]
    assert other[expected] == 1


# ------------------------------------------------------------------------------------------- random


@pytest.mark.parametrize("seed", range(12))
def test_errors_are_all_detections_that_are_not_right(seed: int) -> None:
    scenes = random_scenes(seed, images=20)
    meter = measure(scenes)
    got = detection_errors(meter.collected(), 4)
    assert got.ap50 == pytest.approx(meter.summary()["ap50"], abs=1e-9)
    assert min(got.costs.values()) > -1e-9
    assert max(got.costs[kind] for kind in KINDS) > 0.1
    wrong = sum(got.counts[kind] for kind in KINDS)
    assert wrong + sum(right_or_ignored(scene) for scene in scenes) == meter.summary()["detections"]


def right_or_ignored(scene: Scene) -> int:
    """The number of detections with an object, matched one after another as COCO does."""
    taken: list[Truth] = []
    for found in sorted(scene.found, key=lambda one: -one.score):
        best, most = None, (False, 0.5)
        for truth in scene.truth:
            free = truth.crowd or not any(truth is one for one in taken)
            value = (
                not truth.crowd and not truth.difficult,
                overlap(found.box, truth.box, truth.crowd),
            )
            if truth.label == found.label and free and value[1] >= 0.5 and value >= most:
                best, most = truth, value
        if best is not None:
            taken.append(best)
    return len(taken)


def test_errors_do_not_depend_on_the_order_of_images() -> None:
    scenes = random_scenes(5)
    rows = [measure(part, batch=3).collected() for part in (scenes, scenes[::-1])]
    assert detection_errors(rows[0], 4) == detection_errors(rows[1], 4)


@pytest.mark.parametrize("scenes", [[], [Scene(0)], [Scene(0, [], [Found(1, 0.5, A)])]])
def test_nothing_to_find(scenes: list[Scene]) -> None:
    got = detection_errors(measure(scenes, 2).collected(), 2)
    count = sum(len(scene.found) for scene in scenes)
    check(got, 0, background=(count, 0))


def test_a_meter_says_what_each_kind_costs_and_others_say_nothing() -> None:
    meter = measure(random_scenes(4))
    assert errors_of(meter) == detection_errors(meter.collected(), 4).costs
    assert [*errors_of(meter)] == [*KINDS, MISSED]
    assert errors_of(Accuracy()) == {}
