"""Ranks, counted one by one."""

from __future__ import annotations

import pytest
import torch
from synthetic import everyone, hearing, row, ties
from scipy.stats import spearmanr
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
    heard = hearing("teacher", "student", n=40, teacher=ties(40, 5), student=ties(40, 5))
    section = consistency.section(heard)
    assert section is not None
    found = row(section.tables[0], "student")
    target, others, skipped = by_hand(heard.student.logits, heard.voices[0].logits, heard.labels)
    assert found == (pytest.approx(100 * target), pytest.approx(others), skipped)
    assert skipped >= 1 and 0 < target < 1


def test_a_student_that_is_its_teacher_ranks_alike() -> None:
    same = torch.randn(12, 5)
    heard = hearing("teacher", "student", teacher=same, student=same)
    section = consistency.section(heard)
    assert section is not None
    assert row(section.tables[0], "student") == (100, pytest.approx(1), 0)
    assert "in 100.0 % of images." in section.said[0]


def test_the_opposite_order_correlates_by_minus_one() -> None:
    logits = torch.randn(12, 5)
    heard = hearing("teacher", "student", teacher=logits, student=-logits)
    found = consistency.consistency(heard.student, heard.voices[0], heard.labels)
    assert found.others.value == pytest.approx(-1)


def test_a_one_hot_teacher_has_no_order_of_the_others_where_it_is_right() -> None:
    heard = hearing("teacher", "student", teacher=torch.eye(5)[torch.arange(12) % 5])
    found = consistency.consistency(heard.student, heard.voices[0], heard.labels)
    assert (found.others.value, found.others.skipped) == (None, 12)


def test_all_learners_are_listed_and_the_control_is_said_in_brackets() -> None:
    heard = hearing("teacher", "control", "kd", "dist")
    section = consistency.section(heard)
    assert section is not None
    assert [line[0] for line in section.tables[0].rows] == ["control", "kd", "dist"]
    assert section.said[0].startswith("dist ranks") and "% of images (control " in section.said[0]


def test_two_classes_have_no_others() -> None:
    section = consistency.section(everyone(c=2))
    assert section is not None
    assert row(section.tables[0], "student")[1] is None
    assert "fewer than three classes" in section.said[1]


def test_without_a_teacher_there_is_nothing_to_say() -> None:
    assert consistency.section(hearing("control", "student")) is None
