"""Accuracy of each class, counted image by image."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from synthetic import all_text, make_predictions, three_networks

from stillhouse.explain import classes
from stillhouse.explain.section import BarChart


def test_accuracies_and_gains_are_those_counted_by_hand() -> None:
    predictions = three_networks(n=60)
    section, labels = classes.section(predictions), predictions.labels
    (table,) = section.tables
    assert table.columns == (
        "class", "images", "teacher, %", "control, %", "student, %", "gain over the control",
    )  # fmt: skip
    for line in table.rows:
        own = [i for i, y in enumerate(labels.tolist()) if f"c{y}" == line[0]]
        right = [
            100
            * sum(int(v.logits[i].argmax()) == int(predictions.labels[i]) for i in own)
            / len(own)
            for v in predictions.outputs
        ]
        assert line[1:] == pytest.approx((len(own), *right, right[2] - right[1]))
    gains = [line[-1] for line in table.rows]
    assert gains == sorted(gains, reverse=True) and len(gains) == 5
    (chart,) = section.charts
    assert isinstance(chart, BarChart) and chart.series[0].y == pytest.approx(gains)


def test_without_a_control_classes_are_sorted_by_accuracy() -> None:
    section = classes.section(make_predictions("teacher", "student"))
    (table,), (chart,) = section.tables, section.charts
    assert "gain over the control" not in table.columns
    assert isinstance(chart, BarChart) and chart.title == "Accuracy per class"
    assert section.sentences[0].startswith("Highest accuracy of the student: ")


def test_a_class_without_images_is_left_out() -> None:
    predictions = three_networks(n=60)
    section = classes.section(replace(predictions, labels=predictions.labels.clamp(max=3)))
    assert {line[0] for line in section.tables[0].rows} == {"c0", "c1", "c2", "c3"}


def test_of_many_classes_the_two_ends_are_shown() -> None:
    labels = torch.arange(240) % 120
    student = torch.eye(120)[torch.where(labels < 100, labels, 0)]
    control = torch.eye(120)[torch.where(labels >= 20, labels, 119)]
    predictions = make_predictions(
        "control", "student", n=240, c=120, control=control, student=student
    )
    section = classes.section(predictions)
    (table,), (chart,) = section.tables, section.charts
    assert len(table.rows) == 100 and "the last 50 of 120 classes" in all_text(section)
    assert "on 20 of 120 classes and worse on 20" in section.sentences[0]
    assert isinstance(chart, BarChart) and "10 highest" in chart.title
    assert chart.labels == (*(f"c{i}" for i in range(10)), *(f"c{i}" for i in range(110, 120)))
    assert chart.series[0].y == (100.0,) * 10 + (-100.0,) * 10
