"""Calibration against the task's own meter and a loop."""

from __future__ import annotations

import math

import pytest
import torch
from synthetic import make_predictions, row, three_networks

from stillhouse.batches import Batch
from stillhouse.explain import calibration
from stillhouse.explain.section import LineChart
from stillhouse.tasks.classification import Classification
from stillhouse.types import Trace


def test_accuracy_and_ece_are_those_of_the_meter() -> None:
    predictions = three_networks(n=50)
    section = calibration.section(predictions)
    for one in predictions.outputs:
        meter = Classification(5).meter()
        blank = torch.zeros(50)
        meter.update(Trace(one.logits), Batch(blank, predictions.labels, blank, blank))
        found = row(section.tables[0], one.name)
        assert found[0] == pytest.approx(meter.summary()["top1"])
        assert found[2] == pytest.approx(meter.summary()["calibration_error"])


def test_confidence_entropy_and_bins_are_those_of_a_loop() -> None:
    predictions = three_networks(n=50)
    confidences, entropies, bins = [], [], {}
    for logits, label in zip(predictions.student.logits.double(), predictions.labels, strict=True):
        p = logits.softmax(0).tolist()
        confidences.append(max(p))
        entropies.append(-sum(x * math.log(x) for x in p))
        hit = p.index(max(p)) == label
        bins.setdefault(min(int(15 * max(p)), 14), []).append((max(p), float(hit)))
    found = calibration.calibration(predictions.student.logits, predictions.labels)
    assert found.confidence == pytest.approx(sum(confidences) / 50)
    assert found.entropy == pytest.approx(sum(entropies) / 50)
    means = [[sum(x) / len(x) for x in zip(*bins[b], strict=True)] for b in sorted(bins)]
    assert list(zip(found.bin_confidence, found.bin_accuracy, strict=True)) == [
        pytest.approx(pair) for pair in means
    ]


def test_a_confident_and_correct_network_is_calibrated() -> None:
    sure = 1000 * torch.eye(5)[torch.arange(12) % 5]
    section = calibration.section(make_predictions("student", student=sure))
    assert row(section.tables[0], "student") == pytest.approx((100, 100, 0, 0))
    assert section.sentences[-1] == "Mean confidence 100.0 %, accuracy 100.0 %."


def test_the_sentence_says_overconfident_or_underconfident() -> None:
    wrong = 1000 * torch.eye(5)[(torch.arange(12) + 1) % 5]
    section = calibration.section(make_predictions("student", student=wrong))
    assert section.sentences[0] == "Expected calibration error (ECE) of the student: 100.0 %."
    assert section.sentences[1] == "Overconfident: mean confidence 100.0 %, accuracy 0.0 %."
    flat = calibration.section(
        make_predictions("student", student=torch.eye(5)[torch.arange(12) % 5])
    )
    assert flat.sentences[1].startswith("Underconfident: mean confidence 40.5 %, ")


def test_the_reliability_diagram_has_a_diagonal() -> None:
    (chart,) = calibration.section(make_predictions("teacher", "control", "kd", "dist")).charts
    assert isinstance(chart, LineChart) and chart.diagonal
    assert [series.name for series in chart.series] == ["teacher", "control", "dist"]
