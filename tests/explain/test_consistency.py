"""Ranks, counted one by one."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import spearmanr
from synthetic import make_predictions, row, three_networks, tied_logits
from torch import Tensor

from stillhouse.explain import consistency


def rank(values: list[float], value: float) -> float:
    above, equal = sum(v > value for v in values), sum(v == value for v in values)
    return above + (equal + 1) / 2


def by_hand(student: Tensor, teacher: Tensor, labels: Tensor) -> tuple[float, float, int]:
    hits, others, skipped = 0, [], 0
    for s, t, y in zip(student.tolist(), teacher.tolist(), labels.tolist(), strict=True):
        hits += rank(s, s[y]) == rank(t, t[y])
        s.pop(y)
        t.pop(y)
        if len(set(s)) == 1 or len(set(t)) == 1:
            skipped += 1
        else:
            others.append(float(spearmanr(s, t).statistic))
    return hits / len(labels), sum(others) / len(others), skipped


def test_ranks_are_those_counted_by_hand() -> None:
    predictions = make_predictions(
        "teacher", "student", n=40, teacher=tied_logits(40, 5), student=tied_logits(40, 5)
    )
    section = consistency.section(predictions)
    assert section is not None
    found = row(section.tables[0], "student")
    target, others, skipped = by_hand(
        predictions.student.logits, predictions.outputs[0].logits, predictions.labels
    )
    assert found == (pytest.approx(100 * target), pytest.approx(others), skipped)
    assert skipped >= 1 and 0 < target < 1


def test_equal_logits_rank_equally() -> None:
    same = torch.randn(12, 5)
    predictions = make_predictions("teacher", "student", teacher=same, student=same)
    section = consistency.section(predictions)
    assert section is not None
    assert row(section.tables[0], "student") == (100, pytest.approx(1), 0)
    assert "in 100.0 % of images." in section.sentences[0]


def test_the_opposite_ranking_has_correlation_minus_1() -> None:
    logits = torch.randn(12, 5)
    predictions = make_predictions("teacher", "student", teacher=logits, student=-logits)
    found = consistency.consistency(predictions.student, predictions.outputs[0], predictions.labels)
    assert found.others.value == pytest.approx(-1)


def test_a_one_hot_teacher_has_no_ranking_of_the_other_classes() -> None:
    predictions = make_predictions("teacher", "student", teacher=torch.eye(5)[torch.arange(12) % 5])
    found = consistency.consistency(predictions.student, predictions.outputs[0], predictions.labels)
    assert (found.others.value, found.others.skipped) == (None, 12)


def test_all_students_are_listed_and_the_control_is_in_brackets() -> None:
    predictions = make_predictions("teacher", "control", "kd", "dist")
    section = consistency.section(predictions)
    assert section is not None
    assert [line[0] for line in section.tables[0].rows] == ["control", "kd", "dist"]
    assert (
        section.sentences[0].startswith("dist gives the target class")
        and "% of images (control " in section.sentences[0]
    )


def test_two_classes_have_no_others() -> None:
    section = consistency.section(three_networks(c=2))
    assert section is not None
    assert row(section.tables[0], "student")[1] is None
    assert "needs at least three classes" in section.sentences[1]


def test_without_a_teacher_there_is_no_section() -> None:
    assert consistency.section(make_predictions("control", "student")) is None
