"""One class an image: its terms, its site, its meter."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stillhouse.batches import Batch, read_batch
from stillhouse.errors import UserError
from stillhouse.tasks.classification import Classification
from stillhouse.tasks.images import logits
from stillhouse.tasks.meters.accuracy import CALIBRATION_BINS, Accuracy
from stillhouse.types import Trace
from tiny import CLOCK, batch


def seen(n: int = 40, classes: int = 7, dtype: torch.dtype = torch.double) -> tuple[Trace, Batch]:
    rows = batch(n, classes, size=2)
    return Trace((3 * torch.randn(n, classes)).to(dtype)), rows


# ---------------------------------------------------------------------------------------- the terms


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_labels_are_taught_by_cross_entropy(smoothing: float) -> None:
    trace, rows = seen()
    term = Classification(7, label_smoothing=smoothing).supervise(trace, rows)["label"]
    want = F.cross_entropy(trace.out, rows.target, label_smoothing=smoothing)
    torch.testing.assert_close(term.mean(), want)
    assert term.mass == 40
    assert term.weight == 1.0


def test_a_ragged_batch_counts_by_its_images() -> None:
    trace, rows = seen(5)
    parts = [slice(0, 4), slice(4, 5)]
    terms = [
        Classification(7).supervise(Trace(trace.out[part]), rows.rows(part))["label"]
        for part in parts
    ]
    whole = Classification(7).supervise(trace, rows)["label"]
    torch.testing.assert_close(sum(term.total for term in terms), whole.total)
    assert [float(term.mass) for term in terms] == [4, 1]


def test_no_images_are_a_zero_with_a_gradient() -> None:
    out = torch.randn(0, 7, requires_grad=True)
    term = Classification(7).supervise(Trace(out), batch(0, 7))["label"]
    term.mean().backward()
    assert term.total == 0
    assert term.mass == 0


def test_half_precision_is_raised_for_the_labels() -> None:
    trace, rows = seen(dtype=torch.bfloat16)
    term = Classification(7).supervise(trace, rows)["label"]
    assert term.total.dtype == torch.float
    torch.testing.assert_close(term.mean(), F.cross_entropy(trace.out.float(), rows.target))


# --------------------------------------------------------------------------------------- the lesson


def test_the_lesson_has_one_site_with_a_row_for_each_image() -> None:
    student, rows = seen()
    teacher, _ = seen()
    lesson = Classification(7).lesson(student, teacher, rows, CLOCK)
    assert list(lesson.sites) == ["class"]
    at = lesson.sites["class"]
    assert at.student is student.out
    assert at.teacher is teacher.out
    assert at.target is rows.target
    assert lesson.keys is rows.keys
    assert lesson.clock is CLOCK


def test_without_a_teacher_there_is_no_site() -> None:
    student, rows = seen()
    assert Classification(7).lesson(student, Trace(None), rows, CLOCK).sites == {}


def test_networks_get_the_images_and_chance_is_one_in_all_classes() -> None:
    rows = batch()
    (given,) = Classification(8).inputs(rows)
    assert given is rows.images
    assert Classification(8).chance == 12.5
    assert Classification(8).headline in Accuracy().summary()


def test_class_scores_are_found_in_what_networks_give() -> None:
    scores = torch.randn(2, 3)
    for out in (scores, (scores, 1), [scores], {"logits": scores}, SimpleNamespace(logits=scores)):
        assert logits(Trace(out)) is scores
    with pytest.raises(UserError, match="returns a dict, and classification needs class scores"):
        logits(Trace({"boxes": scores}))


# ------------------------------------------------------------------------------------------ batches


def test_a_batch_may_be_a_pair_a_mapping_or_what_we_have() -> None:
    image, label = torch.randn(3, 1, 2, 2), torch.tensor([0, 1, 2])
    for given in (
        (image, label),
        (image, label, "path"),
        {"image": image, "label": label},
        {"pixel_values": image, "labels": label},
    ):
        got = read_batch(given)
        assert got.images is image
        assert got.target is label
        assert got.keys.tolist() == [0, 1, 2]
        assert got.views.tolist() == [0, 0, 0]
    ours = batch(3)
    assert read_batch(ours) is ours
    want = r"a batch must be \(images, target\), or a mapping with `images`"
    with pytest.raises(ValueError, match=want):
        read_batch({"label": label})
    assert read_batch({"image": image}).target is None


# ---------------------------------------------------------------------------------------- the meter


def measured(trace: Trace, rows: Batch) -> dict[str, float]:
    """Each number of the meter in a plain loop."""
    top1 = top5 = loss = 0.0
    bins: list[list[tuple[float, float]]] = [[] for _ in range(CALIBRATION_BINS)]
    for scores, label in zip(trace.out.double().tolist(), rows.target.tolist(), strict=True):
        order = sorted(range(len(scores)), key=lambda c: -scores[c])
        powers = [math.exp(score) for score in scores]
        top1 += order[0] == label
        top5 += label in order[:5]
        loss -= math.log(powers[label] / sum(powers))
        sure = powers[order[0]] / sum(powers)
        bins[min(int(sure * CALIBRATION_BINS), CALIBRATION_BINS - 1)].append(
            (sure, float(order[0] == label))
        )
    images = len(rows.target)
    error = 0.0
    for said in filter(None, bins):
        confidence = sum(sure for sure, _ in said) / len(said)
        accuracy = sum(hit for _, hit in said) / len(said)
        error += len(said) / images * abs(confidence - accuracy)
    return {
        "top1": 100 * top1 / images,
        "top5": 100 * top5 / images,
        "loss": loss / images,
        "calibration_error": 100 * error,
    }


def meter_of(*parts: tuple[Trace, Batch]) -> Accuracy:
    meter = Accuracy()
    for trace, rows in parts:
        meter.update(trace, rows)
    return meter


def split(trace: Trace, rows: Batch, *cuts: int) -> list[tuple[Trace, Batch]]:
    return [
        (Trace(trace.out[a:b]), rows.rows(slice(a, b)))
        for a, b in zip((0, *cuts), (*cuts, len(rows.target)), strict=True)
    ]


def merged(*meters: Accuracy) -> Accuracy:
    """As ranks do it: states are added up."""
    whole = Accuracy()
    whole.load({name: sum(m.state()[name] for m in meters) for name in meters[0].state()})
    return whole


@pytest.mark.parametrize("classes", [3, 7])
def test_the_meter_counts_what_a_plain_loop_counts(classes: int) -> None:
    trace, rows = seen(200, classes)
    summary, want = meter_of((trace, rows)).summary(), measured(trace, rows)
    assert summary.keys() == want.keys()
    assert summary == pytest.approx(want, rel=1e-9)
    assert 0 < want["calibration_error"] < 100


def test_batches_and_ranks_add_up_to_the_whole() -> None:
    trace, rows = seen(53)
    want = pytest.approx(meter_of((trace, rows)).summary(), rel=1e-12)
    parts = split(trace, rows, 10, 11, 40)
    assert meter_of(*parts).summary() == want
    assert merged(*(meter_of(part) for part in parts), Accuracy()).summary() == want


def test_a_sure_and_right_network_is_calibrated_and_a_sure_and_wrong_one_is_not() -> None:
    rows = batch(10, 5)
    sure: Tensor = 100.0 * F.one_hot(rows.target, 5)
    right, wrong = meter_of((Trace(sure), rows)), meter_of((Trace(sure.roll(1, 1)), rows))
    assert right.summary()["top1"] == 100
    assert right.summary()["calibration_error"] == pytest.approx(0)
    assert wrong.summary()["top1"] == 0
    assert wrong.summary()["calibration_error"] == pytest.approx(100)


@pytest.mark.parametrize(("low", "high"), [(0.90, 0.99), (0.84, 0.87), (0.55, 0.65)])
def test_confidences_of_two_fifteenths_are_judged_apart(low: float, high: float) -> None:
    """One too sure and wrong, one too careful and right: in one bin they would make up for it."""
    rows = replace(batch(2, 2), target=torch.tensor([1, 0]))
    out = torch.tensor([[low, 1 - low], [high, 1 - high]]).double().log()
    error = meter_of((Trace(out), rows)).summary()["calibration_error"]
    assert error == pytest.approx(100 * (low + (1 - high)) / 2)


def test_a_meter_that_saw_nothing_says_zero_and_merges() -> None:
    empty = Accuracy()
    assert set(empty.summary().values()) == {0.0}
    full = meter_of(seen())
    assert full.state().keys() == empty.state().keys()
    for name, value in full.state().items():
        assert value.dtype == torch.double
        assert empty.state()[name].shape == value.shape


def test_a_meter_holds_no_graph() -> None:
    trace, rows = seen()
    meter = meter_of((Trace(trace.out.requires_grad_()), rows))
    assert not any(value.requires_grad for value in meter.state().values())
