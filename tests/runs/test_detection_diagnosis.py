"""The diagnoses and the page of a run of detectors: computed, kept, limited and compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from stillhouse.build.session import Session
from stillhouse.explain.predictions import ExplainOptions
from stillhouse.explain.section import BarChart, ImageGrid, Section
from stillhouse.recipes import load
from stillhouse.recipes.schema import Recipe
from stillhouse.report.compare import compare_page
from stillhouse.report.render import render
from stillhouse.report.run import run_page
from stillhouse.runs.diagnosis import diagnose, sections_of_run, students_of
from stillhouse.runs.execute import Result, execute

DETECTOR = (
    "{name: detector/fcos, options: {backbone: stillhouse/small, strides: [4, 8], "
    "neck: {width: 8, extra: 1}, head: {width: 8, depth: 1}}"
)
RECIPE = f"""
task: {{name: detection, threshold: 0.005}}
data:
  name: digits/objects
  train: {{count: 8}}
  val: {{count: 4}}
  test: {{count: 9}}
  batch: 4
teacher: {DETECTOR}, gate: false, store: false, train: {{epochs: 1}}}}
student: {DETECTOR}}}
method: [{{name: tld}}]
control: true
train: {{epochs: 1}}
engine: {{device: cpu, tensorboard: false}}
"""
NAMES = [
    "detections",
    "box_precision",
    "detection_errors",
    "loss_maps",
    "score_errors",
    "gradients",
]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(RECIPE)
    return load.load(str(path))


@pytest.fixture(scope="module")
def done(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return execute(recipe, tmp_path_factory.mktemp("done") / "run", say=lambda _: None)


@pytest.fixture(scope="module")
def sections(done: Result, recipe: Recipe) -> tuple[Section, ...]:
    return sections_of_run(done.folder, recipe, Session.open(recipe, quiet=True))


def test_a_run_has_every_diagnosis_and_keeps_it(
    done: Result, recipe: Recipe, sections: tuple[Section, ...]
) -> None:
    assert [section.name for section in sections] == NAMES
    assert not any(section.failed or section.missing for section in sections)
    assert sections_of_run(done.folder, recipe, None) == _as_kept(sections)
    sheet = sections[0].charts[0]
    assert isinstance(sheet, ImageGrid) and sheet.columns == 4 and len(sheet.pictures) == 24


def _as_kept(sections: tuple[Section, ...]) -> tuple[Section, ...]:
    from stillhouse.explain.section import sections_from_json, sections_to_json

    return sections_from_json(sections_to_json(sections))


def test_precisions_are_those_of_the_run(done: Result, sections: tuple[Section, ...]) -> None:
    assert done.teacher is not None and done.control is not None
    table = sections[1].tables[1]  # by size: all digits are small
    ((name, count, *found),) = table.rows
    assert (name, count) == ("small", int(done.student["test"]["objects"]))
    scores = [one["test"]["ap"] for one in (done.teacher, done.control, done.student)]
    assert found == pytest.approx(scores, abs=1e-3)
    errors = {row[0]: row[1] for row in sections[2].tables[0].rows}
    for name, one in (("control", done.control), ("student", done.student)):
        assert errors[name] == pytest.approx(one["test"]["ap50"], abs=0.5)


def test_a_limit_is_kept_and_said(done: Result, recipe: Recipe) -> None:
    session = Session.open(recipe, quiet=True)
    students = students_of(done.folder, recipe)
    found = diagnose(recipe, students, session, ExplainOptions(limit=4))
    assert "on 4 images of digits/objects/test with" in found[1].sentences[0]


def test_the_page_names_metrics_and_counts(done: Result, sections: tuple[Section, ...]) -> None:
    page = run_page(done.folder)
    assert page.headline == "ap" and len(page.bars) == 3
    assert all("it has learned next to nothing" in note for note in page.notes)
    table = page.tables[0]
    assert table.columns[:3] == ("network", "AP", "AP50") and table.columns[-2:] == (
        "Objects",
        "Detections",
    )
    assert all(isinstance(cell, int) for row in table.rows for cell in row[-2:])
    html = render(page)
    assert 'class="pictures rowed large"' in html and "AP on test" in html
    assert all(cost.flops and cost.latency_1 and cost.memory for cost in page.costs)


def test_without_a_teacher_the_others_are_diagnosed(
    done: Result, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(done.folder, copy)
    (copy / "diagnosis.json").unlink(missing_ok=True)
    monkeypatch.setattr("stillhouse.runs.diagnosis.find_teacher", lambda *_: None)
    found = sections_of_run(copy, recipe, Session.open(recipe, quiet=True))
    assert [section.name for section in found] == ["missing", *NAMES[:3]]
    sheet = found[1].charts[0]
    assert isinstance(sheet, ImageGrid) and sheet.columns == 3
    kept = json.loads((copy / "diagnosis.json").read_text())
    assert kept["sections"][1]["missing"] == ["teacher"]


def test_the_losses_are_those_of_the_recipe(sections: tuple[Section, ...]) -> None:
    losses, errors = sections[3:5]
    assert losses.tables[0].rows[0][0] == "TLD, temperature 0.5 (this run)"
    assert "on 9 images of digits/objects/test" in losses.sentences[0]
    assert errors.tables[0].columns == ("level", "control", "student")
    assert [row[0] for row in errors.tables[0].rows][:3] == ["stride 4", "stride 8", "stride 16"]


def test_what_errors_cost_is_in_the_result(done: Result, sections: tuple[Section, ...]) -> None:
    assert done.control is not None
    chart = sections[2].charts[0]
    assert isinstance(chart, BarChart)
    kept = json.loads((done.folder / "result.json").read_text())["errors"]
    assert [*kept] == [*chart.labels]
    for score, series in ((done.control, chart.series[1]), (done.student, chart.series[2])):
        assert [*score["errors"].values()] == pytest.approx([*series.y], abs=1e-3)
    assert kept == done.student["errors"]


def test_two_runs_are_compared(done: Result, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(done.folder, other)
    page = compare_page(done.folder, other)
    assert [section.name for section in page.sections] == NAMES[:5]
    table = page.sections[1].tables[0]
    assert table.columns[2:] == ("teacher, %", "run, %", "other, %", "gain over run")
    assert all(row[-1] == 0 for row in table.rows)
