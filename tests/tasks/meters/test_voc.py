"""Average precision by the protocols of Pascal VOC against plain loops."""

from __future__ import annotations

from typing import Any

import pytest

from detection_cases import Found, Scene, Truth, measure, overlap, random_scenes

A, B, C = [0.0, 0, 40, 40], [100.0, 100, 140, 140], [50.0, 0, 90, 30]


def judged(scenes: list[Scene], label: int) -> tuple[list[bool], int]:
    """Which counted detections of a class are right, the best first, and its number of objects."""
    found = [
        (one.score, scene, one)
        for scene in sorted(scenes, key=lambda scene: scene.key)
        for one in scene.found
        if one.label == label
    ]
    found.sort(key=lambda row: -row[0])  # stable
    truth = [one for scene in scenes for one in scene.truth if one.label == label]
    taken: list[Truth] = []
    hits = []
    for _, scene, one in found:
        best, most = None, 0.0
        for candidate in scene.truth:
            if candidate.label == label:
                value = overlap(one.box, candidate.box, candidate.crowd)
                if value > most:
                    best, most = candidate, value
        if best is None or most < 0.5:
            hits.append(False)
        elif not (best.difficult or best.crowd):
            hits.append(not any(best is other for other in taken))
            taken.append(best)
    return hits, sum(not (one.difficult or one.crowd) for one in truth)


def points(hits: list[bool], objects: int) -> list[tuple[float, float]]:
    """Recall and precision after each detection."""
    return [(sum(hits[:n]) / objects, sum(hits[:n]) / n) for n in range(1, len(hits) + 1)]


def plain(hits: list[bool], objects: int, protocol: str) -> float:
    curve = points(hits, objects)
    if protocol == "voc07":
        tops = [max([p for r, p in curve if r >= n / 10], default=0) for n in range(11)]
        return sum(tops) / 11
    total, before = 0.0, 0.0
    for recall in sorted({r for r, _ in curve}):
        total += (recall - before) * max(p for r, p in curve if r >= recall)
        before = recall
    return total


@pytest.mark.parametrize("protocol", ["voc", "voc07"])
@pytest.mark.parametrize("seed", range(8))
def test_precision_is_that_of_plain_loops(protocol: Any, seed: int) -> None:
    scenes = random_scenes(seed, images=20)
    meter = measure(scenes, protocol=protocol)
    expected = {}
    for label in range(4):
        hits, objects = judged(scenes, label)
        if objects:
            expected[label] = 100 * plain(hits, objects, protocol)
    assert meter.per_class() == pytest.approx(expected, abs=1e-10)
    assert meter.summary()["ap"] == pytest.approx(sum(expected.values()) / len(expected))
    assert all(0 < value < 100 for value in expected.values())


@pytest.mark.parametrize(("protocol", "expected"), [("voc", 5 / 6), ("voc07", (6 + 10 / 3) / 11)])
def test_hand_made_precision(protocol: Any, expected: float) -> None:
    """Right, wrong, right: precision 1 up to recall .5, then 2/3."""
    found = [Found(0, 0.9, A), Found(0, 0.8, C), Found(0, 0.7, B)]
    meter = measure([Scene(1, [Truth(0, A), Truth(0, B)], found)], 1, protocol)
    assert meter.per_class() == {0: pytest.approx(100 * expected)}
    recall, precision = meter.curves()[0]
    assert recall.tolist() == [0.5, 0.5, 1]
    assert precision.tolist() == pytest.approx([1, 2 / 3, 2 / 3])


def test_the_second_detection_of_an_object_is_wrong_even_beside_a_free_one() -> None:
    beside = [4.0, 0, 44, 40]  # its IoU with A is .82, so COCO gives it the second detection
    scene = Scene(1, [Truth(0, A), Truth(0, beside)], [Found(0, 0.9, A), Found(0, 0.8, A)])
    assert measure([scene], 1, "voc").summary()["ap"] == pytest.approx(50)
    assert measure([scene], 1, "coco").summary()["ap50"] == pytest.approx(100)


@pytest.mark.parametrize("count", [1, 3])
def test_all_detections_of_a_difficult_object_are_left_out(count: int) -> None:
    found = [Found(0, 0.9, B)] * count + [Found(0, 0.8, A)]
    scene = Scene(1, [Truth(0, A), Truth(0, B, difficult=True)], found)
    assert measure([scene], 1, "voc").summary() == {
        "ap": 100,
        "objects": 1,
        "detections": 1 + count,
    }


def test_an_iou_of_one_half_is_enough() -> None:
    half, less = [0.0, 0, 40, 20], [0.0, 0, 40, 19.75]
    assert measure([Scene(1, [Truth(0, A)], [Found(0, 1, half)])], 1, "voc").summary()["ap"] == 100
    assert measure([Scene(1, [Truth(0, A)], [Found(0, 1, less)])], 1, "voc").summary()["ap"] == 0


def test_a_recall_of_three_tenths_reaches_the_third_of_eleven() -> None:
    boxes = [[50.0 * n, 0, 50.0 * n + 40, 40] for n in range(10)]
    scene = Scene(1, [Truth(0, box) for box in boxes], [Found(0, 0.9, box) for box in boxes[:3]])
    assert measure([scene], 1, "voc07").summary()["ap"] == pytest.approx(100 * 4 / 11)
