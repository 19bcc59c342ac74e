"""Accuracy of each class, counted image by image."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from synthetic import all_text, everyone, hearing

from stillhouse.explain import classes
from stillhouse.explain.section import Bars


def test_accuracies_and_gains_are_those_counted_by_hand() -> None:
    heard = everyone(n=60)
    section = classes.section(heard)
    (table,) = section.tables
    assert table.columns == (
        "class", "images", "teacher, %", "control, %", "student, %", "gain over the control",
    )  # fmt: skip
    for line in table.rows:
        own = [i for i, y in enumerate(heard.labels.tolist()) if f"c{y}" == line[0]]
        right = [
            100 * sum(int(v.logits[i].argmax()) == int(heard.labels[i]) for i in own) / len(own)
            for v in heard.voices
        ]
        assert line[1:] == pytest.approx((len(own), *right, right[2] - right[1]))
    gains = [line[-1] for line in table.rows]
    assert gains == sorted(gains, reverse=True) and len(gains) == 5
    (chart,) = section.charts
    assert isinstance(chart, Bars) and chart.series[0].y == pytest.approx(gains)


def test_without_a_control_classes_go_by_accuracy() -> None:
    section = classes.section(hearing("teacher", "student"))
    (table,), (chart,) = section.tables, section.charts
    assert "gain over the control" not in table.columns
    assert isinstance(chart, Bars) and chart.title == "Accuracy"
    assert "best" in section.said[0] and "least" in section.said[0]


def test_a_class_without_images_is_left_out() -> None:
    heard = everyone(n=60)
    section = classes.section(replace(heard, labels=heard.labels.clamp(max=3)))
    assert {line[0] for line in section.tables[0].rows} == {"c0", "c1", "c2", "c3"}


def test_many_classes_are_shown_by_their_ends() -> None:
    labels = torch.arange(240) % 120
    student = torch.eye(120)[torch.where(labels < 100, labels, 0)]
    control = torch.eye(120)[torch.where(labels >= 20, labels, 119)]
    heard = hearing("control", "student", n=240, c=120, control=control, student=student)
    section = classes.section(heard)
    (table,), (chart,) = section.tables, section.charts
    assert len(table.rows) == 100 and "each end of 120" in all_text(section)
    assert "better in 20 of 120 classes and worse in 20" in section.said[0]
    assert isinstance(chart, Bars) and "10 highest" in chart.title
    assert chart.labels == (*(f"c{i}" for i in range(10)), *(f"c{i}" for i in range(110, 120)))
    assert chart.series[0].y == (100.0,) * 10 + (-100.0,) * 10
