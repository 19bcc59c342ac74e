"""Records as training curves."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from stillhouse.explain import training_curves as curves


def record(scale: float = 1.0, steps: int = 4) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        lines.append({
            "kind": "train", "step": step, "epoch": 1, "loss": 2.0,
            "term/label": scale / step, "term/class/kd": scale * step,
            "weight/label": 0.1, "weight/class/kd": step / steps,
            "gauge/temperature": 4.0 + step, "gauge/constant": 4.0, "rate/student": 0.1 / step,
            "images_per_second": 10.0,
        })  # fmt: skip
        lines.append({"kind": "evaluate", "step": step, "epoch": 1, "top1": 10.0 * step, "loss": 1})
    return lines


def test_each_quantity_is_a_curve_of_each_run() -> None:
    runs = {"kd": record(), "other": record(2.0)}
    charts = {chart.title: chart for chart in curves.training_curves(runs, "top1")}
    assert list(charts) == [
        "Top-1 accuracy on validation",
        "Label loss",
        "Distillation loss",
        "Temperature",
        "Loss weight",
        "Learning rate",
    ]
    score = charts["Top-1 accuracy on validation"].series
    assert [(s.name, s.x, s.y) for s in score] == [
        ("kd", (1, 2, 3, 4), (10, 20, 30, 40)),
        ("other", (1, 2, 3, 4), (10, 20, 30, 40)),
    ]
    assert charts["Label loss"].series[1].y == pytest.approx((2, 1, 2 / 3, 0.5))
    taught = charts["Distillation loss"].series
    assert [s.name for s in taught] == ["kd: class/kd", "other: class/kd"]
    assert [s.name for s in charts["Loss weight"].series] == [
        "kd: class/kd",
        "other: class/kd",
    ]
    assert charts["Temperature"].series[0].y == (5, 6, 7, 8)


def test_terms_of_a_single_run_have_no_prefix() -> None:
    charts = {chart.title: chart for chart in curves.training_curves({"kd": record()}, "top1")}
    assert charts["Distillation loss"].series[0].name == "class/kd"


def test_the_default_headline_is_the_first_metric() -> None:
    assert curves.training_curves({"kd": record()})[0].title == "Top-1 accuracy on validation"
    assert curves.training_curves({"kd": [line for line in record() if line["kind"] == "train"]})[
        0
    ].title == ("Label loss")


def test_missing_values_are_gaps() -> None:
    lines = record()
    lines[2]["term/label"] = None
    lines[4]["term/label"] = float("nan")
    (chart,) = [c for c in curves.training_curves({"kd": lines}) if c.title == "Label loss"]
    assert chart.series[0].y == (1.0, None, None, 0.25)


def test_long_curves_are_downsampled() -> None:
    charts = curves.training_curves({"kd": record(steps=450)}, "top1")
    (taught,) = [chart for chart in charts if chart.title == "Distillation loss"]
    series = taught.series[0]
    assert len(series.x) == 200 and series.x[0] == 2 and series.x[-1] == 450
    assert series.y[0] == pytest.approx(1.5) and series.y[-1] == pytest.approx(449)
    sizes = {b - a for a, b in pairwise((0, *series.x))}
    assert sizes == {2, 3}  # no group is so small that its mean is a spike


def test_a_control_has_no_distillation_loss() -> None:
    kept = ("kind", "step", "epoch", "top1", "term/label", "weight/label")
    control = [{k: v for k, v in line.items() if k in kept} for line in record()]
    titles = [c.title for c in curves.training_curves({"control": control})]
    assert titles == ["Top-1 accuracy on validation", "Label loss"]
    assert curves.training_curves({"control": []}, "top1") == curves.training_curves({}) == ()


def test_runs_with_one_optimiser_group_are_curves_by_run() -> None:
    (chart,) = [
        chart
        for chart in curves.training_curves({"kd": record(), "mse": record()})
        if chart.title == "Learning rate"
    ]
    assert [series.name for series in chart.series] == ["kd", "mse"]
    lines = [{**line, "rate/critic": 0.2 / line["step"]} for line in record()]
    (chart,) = [c for c in curves.training_curves({"ctkd": lines}) if c.title == "Learning rate"]
    assert [series.name for series in chart.series] == ["student", "critic"]


def test_terms_of_a_task_without_a_label_term_share_a_chart() -> None:
    lines = [
        {key.replace("term/label", "term/box"): value for key, value in line.items()}
        for line in record()
    ]
    charts = {chart.title: chart for chart in curves.training_curves({"kd": lines})}
    assert "Label loss" not in charts and "Distillation loss" not in charts
    assert [series.name for series in charts["Loss terms"].series] == ["box", "class/kd"]


def test_a_last_record_right_after_another_is_no_spike() -> None:
    lines = [line for line in record(steps=41) if line["step"] in (10, 20, 30, 40, 41)]
    charts = {chart.title: chart for chart in curves.training_curves({"kd": lines}, "top1")}
    taught = charts["Distillation loss"].series[0]
    assert (taught.x, taught.y) == ((10, 20, 30, 41), (10, 20, 30, 40.5))
    assert charts["Top-1 accuracy on validation"].series[0].x == (10, 20, 30, 40, 41)


def test_steps_are_epochs_where_their_length_is_known() -> None:
    runs = {"kd": record(), "long": record(steps=8)}
    (chart, *_) = curves.training_curves(runs, "top1", {"kd": 0.5, "long": 0.25})
    assert chart.x == "epoch"
    assert [series.x[-1] for series in chart.series] == [2, 2]
    assert curves.training_curves(runs, "top1", {"kd": 0.5})[0].x == "step"


def test_one_record_is_no_curve() -> None:
    assert curves.training_curves({"kd": record(steps=1)}, "top1") == ()
