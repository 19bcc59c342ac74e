"""Average precision of classes and decisions at a half, counted image by image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic import all_text, row, several
from sklearn.metrics import average_precision_score, f1_score

from stillhouse.explain import decisions

from stillhouse.explain import average_precision as precision
from stillhouse.explain.predictions import Hearing
from stillhouse.explain.section import Bars

NAMES = ("teacher", "control", "student")


def everyone(n: int = 40, c: int = 5) -> Hearing:
    return several(*NAMES, n=n, c=c)


# --------------------------------------------------------------------------- average precision


def test_precisions_and_gains_are_those_of_scikit_learn() -> None:
    heard = everyone()
    section = precision.section(heard)
    (table,) = section.tables
    assert table.columns == (
        "class", "images", "teacher, %", "control, %", "student, %", "gain over the control",
    )  # fmt: skip
    for line in table.rows:
        c = heard.classes.index(str(line[0]))
        true = heard.labels[:, c].numpy()
        areas = [100 * average_precision_score(true, v.logits[:, c].numpy()) for v in heard.voices]
        assert line[1:] == pytest.approx((int(true.sum()), *areas, areas[2] - areas[1]))
    gains = [line[-1] for line in table.rows]
    assert gains == sorted(gains, reverse=True) and len(gains) == 5
    columns = np.array([line[2:5] for line in table.rows], float).mean(0)
    assert f"is {columns[2]:.1f} % (control {columns[1]:.1f} %)" in section.said[0]
    assert f"the teacher's is {columns[0]:.1f} %" in section.said[0]


def test_bars_are_of_every_network_and_of_the_gain() -> None:
    heard = everyone()
    section = precision.section(heard)
    every, gain = section.charts
    assert isinstance(every, Bars) and isinstance(gain, Bars)
    assert [series.name for series in every.series] == [*NAMES]
    assert every.labels == heard.classes  # in the order of the data
    rows = {line[0]: line for line in section.tables[0].rows}
    assert every.series[2].y == pytest.approx([rows[name][4] for name in every.labels])
    assert gain.series[0].y == pytest.approx([rows[name][-1] for name in gain.labels])
    many = precision.section(several(*NAMES, n=40, c=14))  # 42 bars, which nobody reads
    assert len(many.charts) == 1


def test_a_class_without_images_is_left_out_and_named() -> None:
    heard = everyone()
    labels = heard.labels.clone()
    labels[:, 3] = 0
    section = precision.section(replace(heard, labels=labels))
    assert {line[0] for line in section.tables[0].rows} == {"c0", "c1", "c2", "c4"}
    assert section.said[-1] == "Left out, because no image has the class: c3."
    none = precision.section(replace(heard, labels=torch.zeros_like(labels)))
    assert none.said == ("No image has a class.",) and not none.tables and not none.charts


def test_without_a_control_classes_go_by_precision() -> None:
    section = precision.section(several("teacher", "student", n=40))
    values = [line[-1] for line in section.tables[0].rows]
    assert values == sorted(values, reverse=True)
    assert "The student ranks" in all_text(section) and "gain" not in all_text(section)


# ----------------------------------------------------------------------------------- decisions


def test_decisions_are_those_counted_by_hand() -> None:
    heard = everyone()
    section = decisions.section(heard)
    (table,) = section.tables
    true = heard.labels.numpy() > 0
    for voice in heard.voices:
        said = torch.sigmoid(voice.logits).numpy() > 0.5
        both = sum(bool(a and b) for a, b in zip(said.flat, true.flat, strict=True))
        counts = [(int(a.sum()), int(b.sum())) for a, b in zip(said, true, strict=True)]
        assert row(table, voice.name) == pytest.approx(
            (
                100 * f1_score(true, said, average="micro"),
                100 * f1_score(true, said, average="macro"),
                100 * both / said.sum(),
                100 * both / true.sum(),
                sum(a for a, _ in counts) / 40,
                100 * sum(a == b for a, b in counts) / 40,
                100 * sum(a > b for a, b in counts) / 40,
                100 * sum(a < b for a, b in counts) / 40,
            )
        )


def test_counts_of_classes_are_shared_out_over_all_images() -> None:
    heard = several(*NAMES, n=40, c=9)
    (chart,) = decisions.section(heard).charts
    assert isinstance(chart, Bars)
    assert [series.name for series in chart.series] == ["truth", *NAMES]
    assert chart.labels == ("0", "1", "2", "3", "4", "5", "6 or more")
    for series, chosen in zip(
        chart.series,
        [heard.labels > 0, *(v.logits.sigmoid() > 0.5 for v in heard.voices)],
        strict=True,
    ):
        found = [0] * 7
        for line in chosen.tolist():
            found[min(6, sum(line))] += 1
        assert series.y == pytest.approx([100 * k / 40 for k in found])


def test_who_says_too_many_is_told_and_who_says_nothing_is_no_crash() -> None:
    heard = several("teacher", "loud", loud=torch.full((12, 5), 9.0))
    section = decisions.section(heard)
    truth = float(heard.labels.sum()) / 12
    assert f"It says 5.00 classes an image, and there are {truth:.2f}, so it says too many." in (
        section.said
    )
    mute = decisions.section(several("mute", mute=torch.full((12, 5), -9.0)))
    assert row(mute.tables[0], "mute")[:4] == (0.0, 0.0, None, 0.0)
