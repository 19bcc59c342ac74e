"""Average precision by the protocol of COCO is that of pycocotools, number by number."""

from __future__ import annotations

import numpy as np
import pytest

from detection_cases import Found, Scene, Truth, measure, pycocotools_evaluation, random_scenes
from stillhouse.tasks.meters.coco import CocoPrecision

A, B = [0.0, 0, 40, 40], [100.0, 100, 140, 140]


def result(scenes: list[Scene], classes: int = 4) -> CocoPrecision:
    found = measure(scenes, classes).result()
    assert isinstance(found, CocoPrecision)
    return found


@pytest.mark.parametrize("seed", range(30))
def test_numbers_are_those_of_pycocotools_to_the_last_digit(seed: int) -> None:
    scenes = random_scenes(seed, crowded=130 if seed % 3 == 0 else 0)
    ours, theirs = result(scenes), pycocotools_evaluation(scenes)
    # The libraries round sums differently: by one unit in the last place, 2e-16.
    stats, precision = theirs.stats, theirs.eval["precision"][..., 0, -1]
    np.testing.assert_allclose(ours.stats.nan_to_num(-1), stats, rtol=0, atol=5e-16)
    np.testing.assert_allclose(ours.precision.nan_to_num(-1), precision, rtol=0, atol=5e-16)
    assert 0.02 < ours.stats[0] < 0.98


def test_average_precision_of_a_class_is_that_of_pycocotools_on_this_class_alone() -> None:
    scenes = random_scenes(3, images=30)
    per_class = measure(scenes).per_class()
    assert list(per_class) == [0, 1, 2]  # no object has the last class
    for label, value in per_class.items():
        alone = [
            Scene(
                scene.key,
                [one for one in scene.truth if one.label == label],
                [one for one in scene.found if one.label == label],
            )
            for scene in scenes
        ]
        theirs = pycocotools_evaluation(alone).stats[0]
        assert value == pytest.approx(100 * theirs, abs=1e-12)
    mean = sum(per_class.values()) / 3
    assert measure(scenes).summary()["ap"] == pytest.approx(mean, abs=1e-12)


def test_hand_made_precision() -> None:
    """Of two objects the second detection finds one, at IoU .8: four of ten thresholds fail."""
    found = [Found(0, 0.9, [60, 0, 90, 30]), Found(0, 0.8, [0, 0, 40, 32])]
    summary = measure([Scene(1, [Truth(0, A), Truth(0, B)], found)], 1).summary()
    # precision 1/2 at 51 of 101 recalls, for the thresholds .5 to .8
    assert summary["ap50"] == pytest.approx(100 * 51 / 101 / 2)
    assert summary["ap"] == pytest.approx(100 * 51 / 101 / 2 * 7 / 10)
    assert summary["ar100"] == pytest.approx(100 * 1 / 2 * 7 / 10)
    assert summary["ar1"] == 0


@pytest.mark.parametrize("kind", ["crowd", "difficult"])
def test_a_detection_of_an_ignored_object_is_neither_right_nor_wrong(kind: str) -> None:
    truth = [Truth(0, A), Truth(0, B, **{kind: True})]
    found = [Found(0, 0.9, B), Found(0, 0.8, A)]
    summary = measure([Scene(1, truth, found)], 1).summary()
    assert summary["ap"] == pytest.approx(100)
    assert summary["objects"] == 1
    assert summary["detections"] == 2


def test_a_crowd_takes_several_detections_and_a_difficult_object_one() -> None:
    inside = [[100.0, 100, 110, 110], [120.0, 120, 130, 130]]
    found = [Found(0, 0.9, box) for box in [*inside, B, B]] + [Found(0, 0.8, A)]
    crowd = measure([Scene(1, [Truth(0, A), Truth(0, B, crowd=True)], found)], 1)
    assert crowd.summary()["ap"] == pytest.approx(100)
    difficult = measure([Scene(1, [Truth(0, A), Truth(0, B, difficult=True)], found)], 1)
    assert difficult.summary()["ap"] == pytest.approx(100 / 4)  # three of four before A are wrong


def test_sizes_are_those_of_annotated_areas() -> None:
    def sizes(area: float | None) -> set[str]:
        summary = measure([Scene(1, [Truth(0, A, area=area)], [Found(0, 0.9, A)])], 1).summary()
        return {name for name in ("ap_small", "ap_medium", "ap_large") if name in summary}

    assert sizes(None) == {"ap_medium"}  # 40 x 40
    assert sizes(1000) == {"ap_small"}
    assert sizes(1024) == {"ap_small", "ap_medium"}  # pycocotools counts the border twice
    assert sizes(1e4) == {"ap_large"}


def test_a_curve_is_the_precision_at_101_recalls() -> None:
    found = [Found(0, 0.9, A), Found(0, 0.8, [60, 0, 90, 30]), Found(0, 0.7, B)]
    curves = measure([Scene(1, [Truth(0, A), Truth(0, B)], found)], 2).curves()
    assert list(curves) == [0]
    recall, precision = curves[0]
    assert recall[[0, 50, 100]].tolist() == [0, 0.5, 1]
    assert precision[:51].tolist() == pytest.approx([1] * 51)
    assert precision[51:].tolist() == pytest.approx([2 / 3] * 50)
