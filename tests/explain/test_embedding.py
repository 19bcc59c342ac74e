"""Features in two dimensions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic import make_predictions, three_networks

from stillhouse.explain import embedding
from stillhouse.explain.section import ScatterPlot, Section


def cloud(section: Section | None) -> ScatterPlot:
    assert section is not None and isinstance(section.charts[0], ScatterPlot)
    return section.charts[0]


def test_principal_components_are_those_of_the_covariance() -> None:
    x = np.random.default_rng(0).normal(size=(40, 6)) * np.arange(1, 7)
    found = embedding.principal_components(x, 2)
    values, vectors = np.linalg.eigh(np.cov(x.T))
    for k in range(2):
        wanted = (x - x.mean(0)) @ vectors[:, -1 - k]
        np.testing.assert_allclose(np.abs(found[:, k]), np.abs(wanted), atol=1e-9)
        assert found[:, k].var(ddof=1) == pytest.approx(values[-1 - k])
    assert embedding.principal_components(x[:, :1], 2)[:, 1].tolist() == [0] * 40


def test_tsne_keeps_clusters_and_is_deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "ITERATIONS", 500)  # as outside of tests
    labels = torch.arange(60) % 3
    predictions = three_networks(n=60, c=3, features=8)
    apart = [
        replace(v, features=20 * torch.eye(8)[labels] + torch.randn(60, 8))
        for v in predictions.outputs
    ]
    predictions = replace(predictions, outputs=tuple(apart))
    section = embedding.section(predictions)
    chart = cloud(section)
    assert [s.name for s in chart.series] == ["teacher", "control", "student"]
    assert chart.groups == ("c0", "c1", "c2")
    for series in chart.series:
        points = np.array([series.x, series.y]).T
        centres = np.array([points[np.array(series.group) == g].mean(0) for g in range(3)])
        nearest = ((points[:, None] - centres) ** 2).sum(2).argmin(1)
        assert nearest.tolist() == list(series.group) == labels.tolist()
    assert cloud(embedding.section(predictions)) == chart
    assert section is not None and "perplexity 19.7" in section.sentences[0]


def test_samples_and_classes_are_chosen_evenly() -> None:
    labels = torch.arange(6000) % 40
    index = embedding.choose_images(labels)
    kept, counts = labels[torch.from_numpy(index)].unique(return_counts=True)
    assert len(index) == 1000 and len(set(index.tolist())) == 1000
    assert kept[0] == 0 and kept[-1] == 39 and len(kept) == 10
    assert int(counts.max() - counts.min()) <= 1
    assert embedding.choose_images(torch.arange(30) % 3).tolist() == list(range(30))


def test_a_network_without_features_is_skipped_and_named() -> None:
    predictions = three_networks(n=20, features=4)
    teacher, control, student = predictions.outputs
    dead = replace(student, features=torch.ones(20, 4))
    predictions = replace(predictions, outputs=(teacher, replace(control, features=None), dead))
    section = embedding.section(replace(predictions, layout="pca"))
    assert [s.name for s in cloud(section).series] == ["teacher"]
    assert section is not None
    assert "control" in section.sentences[1] and "student" in section.sentences[2]
    assert "projected by PCA." in section.sentences[0]
    assert embedding.section(three_networks()) is None


@pytest.mark.parametrize("n", [2, 5, 7])
def test_few_images_and_one_feature(n: int) -> None:
    for series in cloud(
        embedding.section(make_predictions("teacher", "student", n=n, features=1))
    ).series:
        assert len(series.x) == n and np.isfinite([series.x, series.y]).all()
