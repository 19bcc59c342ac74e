"""Means, spreads and distances of logits, in loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from synthetic import make_predictions, row, three_networks

from stillhouse.explain import logits
from stillhouse.explain.section import DensityPlot


def kl(student: np.ndarray, teacher: np.ndarray, temperature: float) -> float:
    total = 0.0
    for s, t in zip(student / temperature, teacher / temperature, strict=True):
        p, q = np.exp(t) / np.exp(t).sum(), np.exp(s) / np.exp(s).sum()
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return total / len(student)


def gaps(student: np.ndarray, teacher: np.ndarray, labels: list[int]) -> tuple[float, float]:
    found = []
    for y in sorted(set(labels)):
        own = [i for i, label in enumerate(labels) if label == y]
        gap = np.abs(student[own].mean(0) - teacher[own].mean(0))
        gap[y] = 0
        found.append(gap)
    return float(np.mean(found)), float(np.max(found))


def scaled(x: np.ndarray) -> np.ndarray:
    return np.array([(r - r.mean()) / r.std() for r in x])


def test_distances_are_those_of_a_loop() -> None:
    predictions = three_networks(n=30)
    section = logits.section(predictions)
    s, t = (
        predictions.student.logits.double().numpy(),
        predictions.outputs[0].logits.double().numpy(),
    )
    labels = predictions.labels.tolist()
    wanted = (
        *gaps(s, t, labels),
        *gaps(scaled(s), scaled(t), labels),
        kl(s, t, 1),
        kl(s, t, 4),
    )
    assert row(section.tables[1], "student") == pytest.approx(wanted)


def test_the_standard_deviation_is_that_of_the_population() -> None:
    predictions = three_networks(n=30)
    section = logits.section(predictions)
    for one in predictions.outputs:
        z = one.logits.double().numpy()
        wanted = (
            np.mean([r.mean() for r in z]),
            np.mean([r.std(ddof=0) for r in z]),
            np.mean([r.var(ddof=0) for r in z]),
        )
        assert row(section.tables[0], one.name) == pytest.approx(wanted)


def test_the_histogram_has_every_image_once_on_common_edges() -> None:
    predictions = three_networks(n=30)
    (chart,) = logits.section(predictions).charts
    assert isinstance(chart, DensityPlot)
    assert len(chart.x_edges) == len(chart.y_edges) == 41
    for density, one in zip(chart.densities, predictions.outputs, strict=True):
        counts = np.array(density.counts)
        assert counts.shape == (40, 40) and counts.sum() == 30
        for r in one.logits.double().numpy():
            x = min(np.searchsorted(chart.x_edges, r.mean(), "right") - 1, 39)
            y = min(np.searchsorted(chart.y_edges, r.std(), "right") - 1, 39)
            counts[y, x] -= 1
        assert not counts.any()


def test_equal_logits_have_distance_0() -> None:
    same = torch.randn(12, 5)
    section = logits.section(make_predictions("teacher", "student", teacher=same, student=same))
    assert row(section.tables[1], "student") == pytest.approx([0] * 6, abs=1e-12)


def test_standardising_removes_scale_and_shift() -> None:
    same = torch.randn(12, 5)
    predictions = make_predictions("teacher", "student", teacher=same, student=3 * same + 2)
    found = logits.logit_distances(predictions, predictions.outputs[0])["student"]
    assert found.mean > 0.5 and found.standardised_largest == pytest.approx(0, abs=1e-5)


def test_constant_logits() -> None:
    flat = torch.full((12, 5), 2.0)
    predictions = make_predictions("teacher", "student", teacher=flat, student=flat)
    section = logits.section(predictions)
    (chart,) = section.charts
    assert isinstance(chart, DensityPlot)
    assert np.all(np.diff(chart.x_edges) > 0) and np.all(np.diff(chart.y_edges) > 0)
    assert row(section.tables[1], "student") == (0, 0, 0, 0, 0, 0)


def test_without_a_teacher_there_are_moments_only() -> None:
    section = logits.section(make_predictions("control", "student"))
    assert len(section.tables) == 1 and len(section.sentences) == 1
    assert " within an image: " in section.sentences[0] and "teacher" not in section.sentences[0]


def test_a_study_lists_all_networks_and_draws_three() -> None:
    section = logits.section(make_predictions("teacher", "control", "kd", "ttm", "dist"))
    (chart,) = section.charts
    assert isinstance(chart, DensityPlot)
    assert [d.name for d in chart.densities] == ["teacher", "control", "dist"]
    assert len(section.tables[0].rows) == 5 and len(section.tables[1].rows) == 4
