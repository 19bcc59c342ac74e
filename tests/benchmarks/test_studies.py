"""The study files behind docs/results load, and compare what the tables there hold."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from stillhouse.recipes import load
from stillhouse.study import arguments
from stillhouse.study.plan import make_plan

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
OTHERS = {  # which train on data or with a teacher that is not made here
    "cells_distillation": "detection/cells",
    "camvid": "semantic/camvid",
    "photographs": "photographs",
    "unlabelled": "unlabelled",
}
FILES = sorted((BENCHMARKS / "studies").glob("*.yaml"))
TABLES = {
    "classification": "classification",
    "methods": "methods",
    "methods_strength": "methods/strength",
    "labels": "multilabel",
    "labels_temperatures": "multilabel/temperatures",
    "labels_strength": "multilabel/strength",
    "detection": "detection",
    "detection_features": "detection/features",
    "detection_two_stage": "detection/two_stage",
    "semantic": "semantic",
    "instance": "instance",
    "instance_features": "instance/features",
}
every_study = pytest.mark.parametrize(
    "path", [*FILES, *(BENCHMARKS / f"{name}.yaml" for name in OTHERS)], ids=lambda path: path.stem
)


@every_study
def test_a_study_compares_what_its_table_holds(path: Path) -> None:
    plan = make_plan(load.load(path))
    table = ROOT / "docs" / "results" / (TABLES | OTHERS)[path.stem] / "cells.csv"
    with table.open(encoding="utf-8") as file:
        cells = [(row["method"], row["teacher"], int(row["seed"])) for row in csv.DictReader(file)]
    arms = {(arm.label, arm.teacher) for arm in plan.arms}
    assert arms == {(method, teacher) for method, teacher, _ in cells}
    searched = path.stem in ("classification", "labels")  # whose seeds the Makefile says
    seeds = range(5) if searched else plan.seeds
    assert len(cells) == len(arms) * len(seeds)
    assert {seed for _, _, seed in cells} == set(seeds)


@every_study
def test_a_label_says_the_options_of_its_method(path: Path) -> None:
    """A sweep leaves alone what the label of a method fixes, as if it were a command's word."""
    plan = make_plan(load.load(path))
    section, base = plan.recipe.study, load.load(path, ["study=null"])
    assert section is not None
    for label in section.methods.keys() - section.searched.keys():
        spelt = load.replace_sections(base, {"method": arguments.parse_method(label, base)})
        assert spelt.method == section.methods[label], label


def test_the_makefile_trains_every_study_and_no_other() -> None:
    made = re.findall(r"\$\(STUDIES\)/(\w+)\.yaml", (ROOT / "Makefile").read_text("utf-8"))
    assert sorted(made) == [path.stem for path in FILES] == sorted(TABLES)
