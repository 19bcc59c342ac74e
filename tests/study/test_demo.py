"""The line that answers whether it helped."""

from __future__ import annotations

import re

import pytest

from stillhouse.recipes import load
from stillhouse.study.demo import CONTROL, METHODS, RECIPE, Study
from stillhouse.study.statistics import paired_interval

SCORES = {
    CONTROL: [70.0, 70.5, 69.7],
    "kd": [71.8, 72.1, 71.5],
    "dkd": [69.0, 70.9, 70.1],
}


def score(value: float) -> dict:
    return {"test": {"top1": value}, "name": "stillhouse/small", "parameters": 22_780}


@pytest.fixture
def study() -> Study:
    recipe = load.load(RECIPE)
    scores = {name: [score(value) for value in values] for name, values in SCORES.items()}
    return Study(recipe, "top1", score(74.04), scores)


def test_one_line_a_method_and_none_for_the_control(study: Study) -> None:
    lines = study.answers()
    assert [line.partition(":")[0] for line in lines] == ["KD", "DKD"]
    assert lines[0] == (
        "KD: student 71.8 ± 0.3, control 70.1 ± 0.4, teacher 74.0: "
        "+1.7 (95 % interval 1.4 … 2.0, 3 seeds)"
    )


def test_the_numbers_are_those_of_the_statistics(study: Study) -> None:
    numbers = [float(x) for x in re.findall(r"[-+]?\d+\.\d", study.answer("dkd"))]
    gain = paired_interval(SCORES["dkd"], SCORES[CONTROL])
    assert numbers[-3:] == [round(x, 1) for x in gain]
    assert gain.low < 0 < gain.high  # and a method that does not help says so
    assert numbers[:2] == [70.0, 1.0]


def test_what_it_compares() -> None:
    assert next(iter(METHODS)) == CONTROL and METHODS[CONTROL].name == "none"
    assert [METHODS[name].name for name in METHODS] == list(METHODS)
    recipe = load.load(RECIPE)
    assert recipe.teacher is not None and recipe.teacher.gate
