"""Neighbours of queries, against loops over distances."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic import all_text, make_multilabel, row, with_subset
from torch import Tensor

from stillhouse.explain import neighbours, retrieval, subset
from stillhouse.explain.neighbours import NEAREST, LabelwiseSearch
from stillhouse.explain.predictions import Outputs, Predictions
from stillhouse.explain.section import ImageGrid
from stillhouse.explain.subset import SubsetLoader

NAMES = ("teacher", "control", "student")
NOBODY = SubsetLoader(lambda keys: [], lambda images: images)


def by_loops(embeddings: np.ndarray, sample: int, label: int) -> list[int]:
    """The samples by distance of their embedding of a class, the nearest first."""
    own = embeddings[sample, label]
    away = [float(((e[label] - own) ** 2).sum()) for e in embeddings.astype(float)]
    return [i for i in np.argsort(away, kind="stable").tolist() if i != sample][:NEAREST]


def random_nearest(_: Outputs) -> Tensor:
    """Any five samples for each of the most queries there can be."""
    return torch.stack([torch.randperm(30)[:5] for _ in range(150)])


def predictions() -> Predictions:
    """Three networks that found any five."""
    found = with_subset(make_multilabel(*NAMES, n=30), nearest=random_nearest)
    assert found.subset is not None
    count = len(found.subset.queries)
    outputs = (
        replace(v, nearest=v.nearest[:count]) for v in found.outputs if v.nearest is not None
    )
    return replace(found, outputs=tuple(outputs))


# ------------------------------------------------------------------------------------ the search


def test_a_search_in_batches_finds_what_loops_find() -> None:
    embeddings = torch.randn(23, 4, 6)
    queries = torch.tensor([[3, 0], [3, 2], [22, 1], [0, 0], [9, 2]])
    search = LabelwiseSearch(embeddings[queries[:, 0], queries[:, 1]], queries[:, 1])
    for part in embeddings.split(7):
        search.add(part)
    found = search.nearest(queries[:, 0])
    assert found is not None and found.shape == (5, NEAREST)
    for (sample, label), line in zip(queries.tolist(), found.tolist(), strict=True):
        assert line == by_loops(embeddings.numpy(), sample, label) and sample not in line


def test_ties_are_in_the_order_of_the_images() -> None:
    found = neighbours.nearest_images(torch.zeros(2, 9), torch.tensor([0, 3]))
    assert found is not None
    assert found.tolist() == [[1, 2, 3, 4, 5], [0, 1, 2, 4, 5]]


def test_few_images_and_infinite_distances() -> None:
    itself = torch.tensor([1])
    found = neighbours.nearest_images(torch.tensor([[2.0, 0.0, 1.0]]), itself)
    assert found is not None and found.tolist() == [[2, 0]]
    assert neighbours.nearest_images(torch.zeros(1, 1), torch.tensor([0])) is None
    assert neighbours.nearest_images(torch.tensor([[2.0, 0.0, torch.nan]]), itself) is None
    assert (
        LabelwiseSearch(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)).nearest(itself[:0])
        is None
    )


# ------------------------------------------------------------------------------ queries


def test_queries_are_all_classes_of_evenly_spaced_images() -> None:
    labels = (torch.rand(900, 6) < 0.3).float()
    chosen = subset.choose_subset(labels, torch.arange(900), NOBODY)
    assert chosen is not None and len(chosen.samples) == subset.IMAGES
    assert chosen.samples.tolist() == sorted({*chosen.samples.tolist()})
    assert int(chosen.samples[0]) < 20 and int(chosen.samples[-1]) > 880
    wanted = [(p, c) for p, s in enumerate(chosen.samples) for c in range(6) if labels[s, c]]
    assert [tuple(q) for q in chosen.queries.tolist()] == wanted


def test_the_class_of_a_map_is_the_rarest_of_the_image() -> None:
    labels = torch.tensor([[1, 1, 0.0], [1, 0, 1], [1, 1, 1], [0, 0, 0], [1, 0, 0]])
    chosen = subset.choose_subset(labels, torch.arange(5), NOBODY)
    assert chosen is not None
    assert chosen.samples.tolist() == [0, 1, 2, 4]  # an image without a class is left out
    assert chosen.labels.tolist() == [1, 2, 1, 0]
    assert subset.choose_subset(torch.zeros(4, 3), torch.arange(4), NOBODY) is None


def test_single_labels_are_stratified_and_have_no_queries() -> None:
    labels = torch.arange(1000) // 100
    chosen = subset.choose_subset(labels, torch.arange(1000), NOBODY)
    assert chosen is not None and len(chosen.queries) == 0
    counts = chosen.labels.bincount()
    assert len(counts) == 10 and int(counts.max() - counts.min()) <= 1
    assert torch.equal(chosen.labels, labels[chosen.samples])


def test_very_many_queries_are_thinned() -> None:
    chosen = subset.choose_subset(torch.ones(300, 20), torch.arange(300), NOBODY)
    assert chosen is not None and len(chosen.queries) == subset.QUERIES
    assert chosen.queries[:, 0].unique().numel() == subset.IMAGES


# ------------------------------------------------------------------------------- what was found


def test_shares_are_those_counted_by_hand() -> None:
    found = predictions()
    assert found.subset is not None
    section = retrieval.section(found)
    assert section is not None
    true = (found.labels > 0).tolist()
    queries = [(int(found.subset.samples[p]), c) for p, c in found.subset.queries.tolist()]
    for one in found.outputs:
        assert one.nearest is not None
        precise = related = 0
        for (sample, label), line in zip(queries, one.nearest.tolist(), strict=True):
            precise += sum(true[i][label] for i in line)
            related += sum(any(np.logical_and(true[i], true[sample])) for i in line)
        shares = [100 * k / (5 * len(queries)) for k in (precise, related)]
        assert row(section.tables[0], one.name) == ("features", *map(pytest.approx, shares))
    others = [(s, c, i) for s, c in queries for i in range(30) if i != s]
    base = [
        100 * sum(true[i][c] for _, c, i in others) / len(others),
        100 * sum(any(np.logical_and(true[i], true[s])) for s, _, i in others) / len(others),
    ]
    assert row(section.tables[0], "chance")[1:] == pytest.approx(base)
    assert f"; chance {base[0]:.1f} %." in section.sentences[1]


def test_each_query_shows_the_images_and_shared_classes_of_every_network() -> None:
    found = predictions()
    section = retrieval.section(found)
    assert section is not None and found.subset is not None
    assert len(section.charts) == retrieval.SHOWN
    queries = retrieval.shown_queries(found.subset.queries)
    places, labels = found.subset.queries[queries].unbind(1)
    assert places.unique().numel() == labels.unique().numel() == retrieval.SHOWN
    for chart, query in zip(section.charts, queries, strict=True):
        assert isinstance(chart, ImageGrid) and chart.columns == 6 and len(chart.pictures) == 18
        place, label = found.subset.queries[query].tolist()
        assert chart.title == f"Nearest images for a query of class c{label}"
        own = {c for c in range(5) if found.positives[found.subset.samples[place], c]}
        for n, one in enumerate(found.outputs):
            first, *others = chart.pictures[6 * n : 6 * n + 6]
            assert first.caption == f"query, {one.name}" and one.nearest is not None
            for picture, other in zip(others, one.nearest[query].tolist(), strict=True):
                both = own & {c for c in range(5) if found.positives[other, c]}
                words = picture.caption.removeprefix("shares ").split(", not ")
                assert {*words[0].split(", ")} == ({f"c{c}" for c in both} or {"none"})
                assert words[1:] == ([f"c{label}"] if both and label not in both else [])


def test_a_network_without_neighbours_is_named() -> None:
    found = predictions()
    teacher, control, student = found.outputs
    without_control = replace(found, outputs=(teacher, replace(control, nearest=None), student))
    section = retrieval.section(without_control)
    assert section is not None and "The control has no features" in section.sentences[-1]
    assert [line[0] for line in section.tables[0].rows] == ["teacher", "student", "chance"]
    without_any = tuple(replace(v, nearest=None) for v in found.outputs)
    section = retrieval.section(replace(found, outputs=without_any))
    assert section is not None and not section.tables and "No network has" in all_text(section)
    without_student = (teacher, control, replace(student, nearest=None))
    section = retrieval.section(replace(found, outputs=without_student))
    assert section is not None and "The student has no features" in section.sentences[-1]
    assert retrieval.section(make_multilabel(*NAMES)) is None
