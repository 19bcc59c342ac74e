"""A student that learns nothing, a class without images, a single class: each is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from quick import run
from stillhouse.data.source import Pixels
from stillhouse.errors import UserError
from stillhouse.report.run import run_page
from stillhouse.runs.chance import acclimation_warnings, chance_warnings, empty_class_notes
from stillhouse.tasks.base import Facts
from stillhouse.tasks.classification import Classification, ClassificationSpec

ALONE = ("method=none", "teacher=null", "train.epochs=1")
STILL = "train.optimiser={kind: sgd, lr: 1.0e-9}"


def pixels(labels: list[int], classes: tuple[str, ...]) -> Pixels:
    images = torch.zeros(len(labels), 1, 4, 4, dtype=torch.uint8)
    return Pixels(images, torch.tensor(labels), classes, "f", "photos/train")


@pytest.mark.parametrize(("top1", "warned"), [(0.0, 1), (10.0, 1), (60.0, 0)])
def test_scores_near_chance_are_warned_of(top1: float, warned: int) -> None:
    measured = pixels([n % 10 for n in range(500)], tuple("abcdefghij"))
    found = chance_warnings(Classification(10), {"top1": top1}, "test", measured)
    assert len(found) == warned
    assert all(f"top1 {top1:.2f} on test, where chance is 10.00" in text for text in found)
    assert chance_warnings(Classification(10), {}, "test", measured) == []


@pytest.mark.parametrize(("top1", "warned"), [(79.5, 1), (90.0, 1), (90.5, 0)])
def test_always_predicting_the_most_frequent_class_is_warned_of(top1: float, warned: int) -> None:
    labels = [1] * 180 + [0] * 10 + [2] * 10 + [-1] * 50  # the last have no label
    measured = pixels(labels, ("cat", "dog", "fox"))
    found = chance_warnings(Classification(3), {"top1": top1}, "test", measured)
    assert len(found) == warned
    assert all("where always predicting 'dog' reaches 90.00: it has" in text for text in found)


def test_a_student_at_chance_is_said_in_terminal_result_and_page(tmp_path: Path) -> None:
    said: list[str] = []
    folder = run(tmp_path / "run", *ALONE, STILL, say=said.append).folder
    (warning,) = json.loads((folder / "result.json").read_text())["warnings"]
    assert "it has learned next to nothing; lower the learning rate" in warning
    assert f"warning: {warning}" in said
    assert warning in run_page(folder, explain=False).notes


@pytest.mark.parametrize(("after", "warned"), [(80.0, 0), (70.0, 0), (64.5, 1)])
def test_a_teacher_that_acclimation_has_ruined_is_said(after: float, warned: int) -> None:
    scores = {"before": {"validation": {"top1": 74.0}}, "after": {"validation": {"top1": after}}}
    found = acclimation_warnings(Classification(10), scores)
    assert len(found) == warned
    assert all("from top1 74.00 to 64.50 on validation; lower the rate" in text for text in found)


def test_a_run_warns_of_a_ruined_teacher(tmp_path: Path) -> None:
    method = "method=[{name: dist, temperature: 4}, {name: acclimation, rate: 10}]"
    folder = run(tmp_path / "run", method, "teacher.remember=false", "train.epochs=1").folder
    warnings = json.loads((folder / "result.json").read_text())["warnings"]
    assert any(text.startswith("acclimation lowered the teacher from top1") for text in warnings)


def test_classes_without_training_images_are_named() -> None:
    assert empty_class_notes(pixels([0, 1, 2], ("a", "b", "c"))) == []
    (note,) = empty_class_notes(pixels([0, 2, -1], ("a", "b", "c")))
    assert note.startswith("photos/train has no image of 'b', which the student cannot learn;")
    (note,) = empty_class_notes(pixels([0], tuple("abcdefg")))
    assert "'b', 'c', 'd' and 3 more classes" in note


def test_one_class_cannot_be_classified() -> None:
    facts: Any = Facts("photos", ("cat",), torch.zeros(3, dtype=torch.long))
    with pytest.raises(UserError, match=r"photos has one class, 'cat', so that every prediction"):
        ClassificationSpec().build(facts)
