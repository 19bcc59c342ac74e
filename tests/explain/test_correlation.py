"""Correlations against scipy, vector by vector."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy import stats
from synthetic import all_text, make_multilabel, make_predictions, row, three_networks, tied_logits

from stillhouse.explain import correlation, relations
from stillhouse.explain.row_statistics import row_pearson, softmax_rows
from stillhouse.explain.section import Heatmap

MEASURES = {
    "Pearson": lambda a, b: stats.pearsonr(a, b).statistic,
    "Spearman": lambda a, b: stats.spearmanr(a, b).statistic,
    "Kendall": lambda a, b: stats.kendalltau(a, b, variant="b").statistic,
}


def softmax(logits: torch.Tensor) -> np.ndarray:
    z = np.exp(logits.double().numpy())
    return z / z.sum(1, keepdims=True)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("where", ["images", "classes"])
def test_means_are_those_of_scipy_and_constant_vectors_are_counted(
    measure: str, where: str
) -> None:
    student, teacher = tied_logits(30, 5), tied_logits(30, 5)
    s, t = softmax_rows(student), softmax_rows(teacher)
    np.testing.assert_allclose(s, softmax(student))
    pairs = zip(*((s, t) if where == "images" else (s.T, t.T)), strict=True)
    known = [MEASURES[measure](a, b) for a, b in pairs if np.ptp(a) and np.ptp(b)]
    found = correlation.correlations(softmax_rows(student), softmax_rows(teacher))
    mean = found[f"{measure}, {where}"]
    assert mean.value == pytest.approx(sum(known) / len(known), abs=1e-9)
    assert mean.skipped == (30 if where == "images" else 5) - len(known)
    assert mean.skipped == (where == "images")


def test_equal_logits_have_correlation_1() -> None:
    same = torch.randn(20, 5)
    section = correlation.section(
        make_predictions("teacher", "student", teacher=same, student=same, n=20)
    )
    assert section is not None
    assert row(section.tables[0], "student") == pytest.approx([1.0] * 6)
    assert len(section.tables) == 1


def test_skipped_vectors_are_counted_in_a_table() -> None:
    predictions = make_predictions("teacher", "student", student=torch.zeros(12, 5))
    section = correlation.section(predictions)
    assert section is not None
    assert row(section.tables[0], "student") == (None,) * 6
    assert row(section.tables[1], "student") == (12, 12, 12, 5, 5, 5)
    assert "undefined" in all_text(section)


def test_tiny_probabilities_do_not_vanish() -> None:
    x = 1e-200 * np.array([[1.0, 2, 3], [1, 1, 1]])
    found = row_pearson(x, np.array([[1.0, 2, 3], [1, 2, 3]]))
    assert found[0] == pytest.approx(1) and np.isnan(found[1])


def test_kendall_uses_a_sample_of_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correlation, "KENDALL_LIMIT", 6)
    predictions = three_networks(n=11)
    section = correlation.section(predictions)
    assert section is not None and "on 6 images" in section.sentences[-1]
    s, t = softmax(predictions.student.logits)[::2], softmax(predictions.outputs[0].logits)[::2]
    known = np.mean([stats.kendalltau(a, b).statistic for a, b in zip(s.T, t.T, strict=True)])
    assert row(section.tables[0], "student")[5] == pytest.approx(known)


def test_one_image_or_one_class() -> None:
    section = correlation.section(three_networks(n=1))
    assert section is not None
    assert row(section.tables[0], "student")[3:] == (None, None, None)
    assert correlation.section(three_networks(c=1)) is None


# ---------------------------------------------------------------------------------------- classes


def test_class_correlations_are_those_of_numpy() -> None:
    predictions = three_networks(n=30)
    section = relations.section(predictions)
    assert section is not None
    matrices = {v.name: np.corrcoef(softmax(v.logits).T) for v in predictions.outputs}
    for name in ("control", "student"):
        gap = matrices[name] - matrices["teacher"]
        pairs = [abs(gap[i, j]) for i in range(5) for j in range(5) if i != j]
        assert row(section.tables[0], name) == (pytest.approx(sum(pairs) / 20),)
    chart = section.charts[1]
    assert (
        isinstance(chart, Heatmap)
        and chart.diverging
        and chart.title.endswith("student minus teacher")
    )
    np.testing.assert_allclose(
        np.array(chart.values, float), matrices["student"] - matrices["teacher"], atol=6e-4
    )


def test_control_and_student_have_a_heatmap_and_all_students_a_row() -> None:
    section = relations.section(make_predictions("teacher", "control", "kd", "ttm", "dist"))
    assert section is not None
    assert [chart.title.split()[3] for chart in section.charts] == ["control", "dist"]
    assert [line[0] for line in section.tables[0].rows] == ["control", "kd", "ttm", "dist"]


def test_a_large_matrix_is_averaged_in_blocks() -> None:
    values = np.arange(49.0).reshape(7, 7)
    values[0, 0] = values[6, 6] = np.nan
    found = relations.average_blocks(values, 3)  # groups of 3, 3 and 1
    assert len(found) == 3 and found[2][2] is None
    assert found[0][0] == pytest.approx(np.nanmean(values[:3, :3]))
    assert found[1][2] == pytest.approx(values[3:6, 6].mean())


def test_a_constant_class_is_an_empty_row() -> None:
    logits = torch.randn(12, 5)
    logits[:, 2] = -2000.0  # a probability of 0 in every image
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        section = relations.section(make_predictions("teacher", "student", student=logits))
    assert section is not None and isinstance(section.charts[0], Heatmap)
    assert section.charts[0].values[2] == (None,) * 5
    assert isinstance(row(section.tables[0], "student")[0], float)


def test_two_classes_have_no_relations() -> None:
    assert relations.section(three_networks(c=2)) is None
    section = relations.section(three_networks(n=1))
    assert section is not None and row(section.tables[0], "student") == (None,)


def test_multi_label_probabilities_are_sigmoids() -> None:
    """Probabilities are those of the logistic function, and two classes are related, too."""
    predictions = make_multilabel("teacher", "control", "student", n=30, c=2)
    p = {v.name: 1 / (1 + np.exp(-v.logits.double().numpy())) for v in predictions.outputs}
    section = relations.section(predictions)
    assert section is not None and isinstance(section.charts[1], Heatmap)
    taught = np.corrcoef(p["teacher"].T)
    for name in ("control", "student"):
        gap = np.corrcoef(p[name].T) - taught
        assert row(section.tables[0], name) == (pytest.approx(abs(gap[0, 1])),)
    values = np.array(section.charts[1].values, float)
    np.testing.assert_allclose(values, np.corrcoef(p["student"].T) - taught, atol=6e-4)
    found = correlation.section(predictions)
    assert found is not None
    known = [
        stats.pearsonr(a, b).statistic for a, b in zip(p["student"].T, p["teacher"].T, strict=True)
    ]
    assert row(found.tables[0], "student")[3] == pytest.approx(np.mean(known))
