"""Pages of runs, of studies and of two runs."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from alone import Alone
from browser import chromium
from quick import WORDS, kept_teacher, quick, run
from stillhouse.cli.app import app
from stillhouse.errors import UserError
from stillhouse.explain.predictions import ExplainOptions
from stillhouse.explain.section import BarChart, LineChart
from stillhouse.recipes import load
from stillhouse.report.compare import compare_page
from stillhouse.report.page import Page
from stillhouse.report.run import run_page
from stillhouse.report.study import arm_name, chosen_options, shown_arms, study_page
from stillhouse.report.write import make_page, write_report
from stillhouse.runs.costs import read_costs
from stillhouse.study.plan import make_plan
from stillhouse.study.results import read_study
from stillhouse.study.runner import run_study


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a control, and a study over two teachers with a method that fails."""
    place = tmp_path_factory.mktemp("folders")
    teacher = kept_teacher()
    words = ("train.epochs=1", "control=true", "paper={student: 72.5, teacher: 79.4}")
    run(place / "run", *words)
    run(place / "other", "train.epochs=1", "method=mse")
    plan = make_plan(
        quick("train.epochs=1", "paper={kd: 73.3}"),
        "kd,mse:weight=1e12",
        2,
        f"stillhouse/little,stillhouse/little={teacher}",
    )
    assert len(plan.teachers) == 1  # one label, one teacher
    run_study(plan, place / "study", Alone(), lambda _: None)
    return place


@pytest.fixture(scope="module")
def of_run(folder: Path) -> Page:
    return run_page(folder / "run")


@pytest.fixture(scope="module")
def of_study(folder: Path) -> Page:
    return study_page(read_study(folder / "study"), "none")


def test_the_page_of_a_run_has_all_networks_and_paper_values(of_run: Page) -> None:
    assert [(bar.who, bar.paper) for bar in of_run.bars] == [
        ("teacher", 79.4),
        ("control", None),
        ("student", 72.5),
    ]
    assert [cost.who for cost in of_run.costs] == ["teacher", "student"]
    assert all(cost.latency_1 and cost.latency_32 and cost.memory for cost in of_run.costs)
    assert of_run.machine
    (note,) = of_run.notes  # after one epoch
    assert "where chance is 10.00: it has learned next to nothing" in note
    assert len(of_run.answers) == 1 and "one seed: no interval" in of_run.answers[0]
    scores, times = of_run.tables
    assert [row[0] for row in scores.rows] == ["teacher", "control", "student"]
    assert times.title == "Time of training" and len(times.rows) == 3
    (curve,) = of_run.curves  # one record of each quantity, which is no curve
    assert isinstance(curve, LineChart) and curve.title == "Top-1 accuracy on validation"
    assert [(one.name, len(one.x)) for one in curve.series] == [
        ("teacher", 3),
        ("control", 1),
        ("student", 1),
    ]
    assert load.validate_recipe(
        load.parse_yaml_value(of_run.recipe, ""), Path("page")
    ) == load.load(
        "digits/raw",
        [*WORDS, "train.epochs=1", "control=true", "paper={student: 72.5, teacher: 79.4}"],
    )


def test_the_page_of_a_study_has_every_arm_and_failure(of_study: Page) -> None:
    assert [bar.who for bar in of_study.bars] == ["teacher", "control", "kd"]
    assert of_study.bars[2].paper == 73.3
    assert any("not finite" in note for note in of_study.notes)
    assert any("Student's t over paired seeds" in note for note in of_study.notes)
    methods, seeds = of_study.tables[:2]
    assert [row[0] for row in methods.rows] == ["none", "kd", "mse:weight=1e12"]
    assert "gain over none" in methods.columns and "paper" in methods.columns
    assert seeds.columns == ("method", "seed 0", "seed 1")
    gains = of_study.curves[0]
    assert isinstance(gains, BarChart) and gains.labels == ("kd",)
    row = dict(zip(methods.columns, methods.rows[1], strict=True))
    (series,) = gains.series
    assert series.y == (row["gain"],)
    assert series.error[0] == pytest.approx(
        (row["gain, 95 % CI high"] - row["gain, 95 % CI low"]) / 2
    )
    named = {section.name for section in of_study.sections}
    assert {"agreement", "consistency", "classes"} <= named


def test_diagnoses_are_of_one_teacher_and_one_control(folder: Path, tmp_path: Path) -> None:
    plan = make_plan(
        quick("train.epochs=1"),
        "kd,mse",
        1,
        f"stillhouse/little,stillhouse/medium={other_teacher(tmp_path)}",
        ["train.epochs=0.5,1"],
    )
    run_study(plan, tmp_path / "study", Alone(), lambda _: None)
    study = read_study(tmp_path / "study")
    best = study.best()
    assert best is not None and len(study.arms) == 2 + 2 * 2 * 2
    names = [arm_name(study, arm) for arm in shown_arms(study)]
    assert names[0] == "control" and names[-1] == best.label and len(names) == 5
    assert shown_arms(study)[0].label == best.control
    assert all(name.endswith(best.teacher) for name in names[1:])
    page = study_page(study, options=ExplainOptions(60))
    (agreement,) = (s for s in page.sections if s.name == "agreement")
    assert [row[0] for row in agreement.tables[0].rows] == names


def other_teacher(folder: Path) -> Path:
    """Another network that knows the digits a little, as the gate wants it."""
    words = ("train.epochs=4", "student=stillhouse/medium", "method=none", "teacher=null")
    return run(folder / "teacher", *words).folder / "student.safetensors"


def test_commands_of_a_page_are_commands(of_run: Page, of_study: Page) -> None:
    from typer.main import get_command

    known = get_command(app).commands
    for line in (*of_run.again, *of_study.again):
        words = shlex.split(line, comments=True)
        assert not words or (words[0] == "stillhouse" and words[1] in known), line


def test_two_runs_are_compared(folder: Path, tmp_path: Path) -> None:
    page = compare_page(folder / "run", folder / "other", ExplainOptions(60))
    assert [bar.who for bar in page.bars] == ["teacher", "run", "other"]
    assert re.match(
        r"Top-1 accuracy on test: other [\d.]+, run [\d.]+, difference [+-][\d.]+ \(one run each",
        page.answers[0],
    )
    assert page.notes == ("The two recipes differ in method, control, paper.",)
    text = " ".join(sentence for section in page.sections for sentence in section.sentences)
    assert "other is better than run on" in text and "control" not in text
    shutil.copytree(folder / "run", tmp_path / "run")
    same = compare_page(folder / "run", tmp_path / "run", ExplainOptions(60))
    assert same.notes == ("The two recipes are equal.",)
    assert [bar.who for bar in same.bars][1:] == [str(folder / "run"), str(tmp_path / "run")]
    with pytest.raises(UserError, match="cannot be compared with itself"):
        compare_page(folder / "run", folder / "run")


def test_damaged_files_are_notes_and_the_rest_is_shown(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    (tmp_path / "run" / "diagnosis.json").write_text("{")
    (tmp_path / "run" / "metrics.jsonl").write_text("no line of a record\n{}\n")
    (tmp_path / "run" / "environment.json").unlink()
    page = run_page(tmp_path / "run")
    assert len(page.bars) == 3 and page.sections == () and page.curves == ()
    assert sum("diagnosis.json is damaged" in note for note in page.notes) == 1
    assert sum("metrics.jsonl, line 1: not a line of metrics" in note for note in page.notes) == 1
    assert "cannot be read" in page.environment


def test_files_of_other_folders_are_not_shown(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    (tmp_path / "foreign.json").write_text('{"secret": "2b47"}')
    for name in ("environment.json", "cost.json", "diagnosis.json", "metrics.jsonl"):
        (tmp_path / "run" / name).unlink(missing_ok=True)
        (tmp_path / "run" / name).symlink_to(tmp_path / "foreign.json")
    page = run_page(tmp_path / "run")
    assert "environment.json leads out of" in page.environment
    assert "2b47" not in repr(page) and len(page.bars) == 3


def test_costs_of_other_types_are_measured_again(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    file = tmp_path / "run" / "cost.json"
    kept = json.loads(file.read_text())
    for change in ({"flops": "many"}, {"colour": 1}, {"name": None}):
        networks = {role: one | change for role, one in kept["networks"].items()}
        file.write_text(json.dumps(kept | {"networks": networks}))
        assert read_costs(file) is None
    page = run_page(tmp_path / "run", explain=False)
    assert [cost.who for cost in page.costs] == ["teacher", "student"]


def test_a_page_without_a_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        make_page(tmp_path / "nosuch")
    with pytest.raises(UserError, match=r"there is no folder .*; .* is not a run folder"):
        write_report([tmp_path / "nosuch", tmp_path])


def test_chosen_options_differ_from_the_defaults() -> None:
    from stillhouse.objectives import presets

    assert chosen_options(presets.kd()) == "the defaults"
    assert chosen_options(presets.kd(temperature=2, weight=0.5)) == "temperature=2, weight=0.5"


def test_real_pages_render_without_console_messages(
    folder: Path, of_run: Page, of_study: Page, tmp_path: Path
) -> None:
    path = write_report([folder / "run", folder / "study"], tmp_path / "all.html")
    assert path.stat().st_size < 5_000_000
    with chromium() as browser:
        tab = browser.new_page(viewport={"width": 360, "height": 700})
        wrong: list[str] = []
        requests: list[str] = []
        tab.on("console", lambda message: wrong.append(message.text))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(path.as_uri())
        assert wrong == [] and requests == [path.as_uri()]
        assert tab.evaluate("document.documentElement.scrollWidth") <= 360
        assert of_run.answers[0] in tab.inner_text("body")
        assert replace(of_study).answers[0] in tab.inner_text("body")
