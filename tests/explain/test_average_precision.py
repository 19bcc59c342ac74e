"""Average precision of classes, and decisions at a threshold of 0.5, counted by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score
from synthetic import all_text, make_multilabel, row

from stillhouse.explain import average_precision, decisions
from stillhouse.explain.predictions import Predictions
from stillhouse.explain.section import BarChart

NAMES = ("teacher", "control", "student")


def three_networks(n: int = 40, c: int = 5) -> Predictions:
    return make_multilabel(*NAMES, n=n, c=c)


# --------------------------------------------------------------------------- average precision


def test_precisions_and_gains_are_those_of_scikit_learn() -> None:
    predictions = three_networks()
    section = average_precision.section(predictions)
    (table,) = section.tables
    assert table.columns == (
        "class", "images", "teacher, %", "control, %", "student, %", "gain over the control",
    )  # fmt: skip
    for line in table.rows:
        c = predictions.classes.index(str(line[0]))
        true = predictions.labels[:, c].numpy()
        areas = [
            100 * average_precision_score(true, v.logits[:, c].numpy()) for v in predictions.outputs
        ]
        assert line[1:] == pytest.approx((int(true.sum()), *areas, areas[2] - areas[1]))
    gains = [line[-1] for line in table.rows]
    assert gains == sorted(gains, reverse=True) and len(gains) == 5
    columns = np.array([line[2:5] for line in table.rows], float).mean(0)
    assert f"images: {columns[2]:.1f} % (control {columns[1]:.1f} %)" in section.sentences[0]
    assert f"; teacher {columns[0]:.1f} %." in section.sentences[0]


def test_bars_are_of_every_network_and_of_the_gain() -> None:
    predictions = three_networks()
    section = average_precision.section(predictions)
    every, gain = section.charts
    assert isinstance(every, BarChart) and isinstance(gain, BarChart)
    assert [series.name for series in every.series] == [*NAMES]
    assert every.labels == predictions.classes  # in the order of the data
    rows = {line[0]: line for line in section.tables[0].rows}
    assert every.series[2].y == pytest.approx([rows[name][4] for name in every.labels])
    assert gain.series[0].y == pytest.approx([rows[name][-1] for name in gain.labels])
    many = average_precision.section(make_multilabel(*NAMES, n=40, c=14))
    assert len(many.charts) == 1


def test_a_class_without_images_is_left_out_and_named() -> None:
    predictions = three_networks()
    labels = predictions.labels.clone()
    labels[:, 3] = 0
    section = average_precision.section(replace(predictions, labels=labels))
    assert {line[0] for line in section.tables[0].rows} == {"c0", "c1", "c2", "c4"}
    assert section.sentences[-1] == "Left out, because no image has the class: c3."
    none = average_precision.section(replace(predictions, labels=torch.zeros_like(labels)))
    assert none.sentences == ("No image has a class.",) and not none.tables and not none.charts


def test_without_a_control_classes_are_sorted_by_precision() -> None:
    section = average_precision.section(make_multilabel("teacher", "student", n=40))
    values = [line[-1] for line in section.tables[0].rows]
    assert values == sorted(values, reverse=True)
    assert "Highest average precision of the student: " in all_text(
        section
    ) and "gain" not in all_text(section)


# ----------------------------------------------------------------------------------- decisions


def test_decisions_are_those_counted_by_hand() -> None:
    predictions = three_networks()
    section = decisions.section(predictions)
    (table,) = section.tables
    true = predictions.labels.numpy() > 0
    for one in predictions.outputs:
        predicted = torch.sigmoid(one.logits).numpy() > 0.5
        both = sum(bool(a and b) for a, b in zip(predicted.flat, true.flat, strict=True))
        counts = [(int(a.sum()), int(b.sum())) for a, b in zip(predicted, true, strict=True)]
        assert row(table, one.name) == pytest.approx(
            (
                100 * f1_score(true, predicted, average="micro"),
                100 * f1_score(true, predicted, average="macro"),
                100 * both / predicted.sum(),
                100 * both / true.sum(),
                sum(a for a, _ in counts) / 40,
                100 * sum(a == b for a, b in counts) / 40,
                100 * sum(a > b for a, b in counts) / 40,
                100 * sum(a < b for a, b in counts) / 40,
            )
        )


def test_shares_of_counts_are_over_all_images() -> None:
    predictions = make_multilabel(*NAMES, n=40, c=9)
    (chart,) = decisions.section(predictions).charts
    assert isinstance(chart, BarChart)
    assert [series.name for series in chart.series] == ["ground truth", *NAMES]
    assert chart.labels == ("0", "1", "2", "3", "4", "5", "6 or more")
    for series, chosen in zip(
        chart.series,
        [predictions.labels > 0, *(v.logits.sigmoid() > 0.5 for v in predictions.outputs)],
        strict=True,
    ):
        found = [0] * 7
        for line in chosen.tolist():
            found[min(6, sum(line))] += 1
        assert series.y == pytest.approx([100 * k / 40 for k in found])


def test_too_many_classes_are_named_and_no_classes_are_allowed() -> None:
    predictions = make_multilabel("teacher", "loud", loud=torch.full((12, 5), 9.0))
    section = decisions.section(predictions)
    truth = float(predictions.labels.sum()) / 12
    wanted = f"5.00 classes per image; the images have {truth:.2f}, so it predicts too many."
    assert section.sentences[1].endswith(wanted)
    section = decisions.section(make_multilabel("none", none=torch.full((12, 5), -9.0)))
    assert row(section.tables[0], "none")[:4] == (0.0, 0.0, None, 0.0)
