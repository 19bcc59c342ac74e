"""What a page says of trainings: curves in epochs, times, the student in Python, predictions."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch

from quick import kept_teacher, quick, run
from stillhouse.build.session import Session
from stillhouse.errors import UserError
from stillhouse.explain.section import LineChart, Section, Table
from stillhouse.explain.section import sections_from_json as restore
from stillhouse.explain.section import sections_to_json as keep
from stillhouse.recipes import load
from stillhouse.report.formatting import format_cell
from stillhouse.report.page import Page
from stillhouse.report.render import write_page
from stillhouse.report.run import run_page
from stillhouse.runs.execute import Result, execute
from stillhouse.runs.prediction_table import TEST_PREDICTIONS, keep_test_predictions, sample_path


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Result:
    kept_teacher()
    return run(tmp_path_factory.mktemp("trainings") / "run", "control=true", "engine.log_every=1")


@pytest.fixture(scope="module")
def pages(done: Result) -> tuple[Page, Page]:
    """The page with new diagnoses, and with those that the folder keeps."""
    return run_page(done.folder), run_page(done.folder)


def named(page: Page, title: str) -> Table:
    return next(table for table in page.tables if table.title == title)


def test_curves_are_of_all_networks_over_epochs(pages: tuple[Page, Page]) -> None:
    charts = {chart.title: chart for chart in pages[0].curves}
    score = charts["Top-1 accuracy on validation"]
    assert isinstance(score, LineChart) and score.x == "epoch"
    assert {series.name: series.x for series in score.series} == {
        "teacher": (1, 2, 3),
        "control": (1, 2),
        "student": (1, 2),
    }
    loss = charts["Label loss"]
    assert isinstance(loss, LineChart)
    ends = [(series.name, series.x[-1]) for series in loss.series]
    assert ends == [("control", 2), ("student", 2)]  # the teacher has one record, which is no curve


def test_the_time_of_each_training(done: Result, pages: tuple[Page, Page]) -> None:
    table = named(pages[0], "Time of training")
    assert [row[:4] for row in table.rows] == [
        ("teacher", "stillhouse/little", "3", 18),
        ("control", "stillhouse/tiny", "2", 12),
        ("student", "stillhouse/tiny", "2", 12),
    ]
    environment = json.loads((done.folder / "environment.json").read_text())
    machines = {row[5] for row in table.rows}
    assert machines == {f"{environment['processor']}, {environment['threads']} thread"} or (
        all("threads" in str(machine) for machine in machines)
    )


def test_the_lines_of_python_load_the_student(done: Result, pages: tuple[Page, Page]) -> None:
    session = Session.open(quick(), quiet=True)
    batch = next(session.test())
    space = {"images": batch.images}
    lines = pages[0].usage
    assert len([line for line in lines if not line.startswith("#")]) == 3
    exec("\n".join(lines), space)
    outputs = space["outputs"]
    assert outputs.shape == (len(batch), 10)
    rows = read(done.folder / TEST_PREDICTIONS)
    names = session.sources.classes
    found = [names[c] for c in outputs.argmax(1).tolist()]
    assert found == [row["prediction"] for row in rows[: len(found)]]


def test_a_student_is_loaded_of_a_finished_run_only(tmp_path: Path, done: Result) -> None:
    from stillhouse import load_student

    with pytest.raises(UserError, match="is not a run folder"):
        load_student(tmp_path)
    shutil.copytree(done.folder, tmp_path / "half")
    (tmp_path / "half" / "student.safetensors.json").unlink()
    with pytest.raises(UserError, match="finish it with"):
        load_student(str(tmp_path / "half"))


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [*csv.DictReader(file)]


def test_the_table_of_predictions_has_the_accuracy_of_the_run(
    done: Result, pages: tuple[Page, Page], tmp_path: Path
) -> None:
    rows = read(done.folder / TEST_PREDICTIONS)
    right = sum(row["label"] == row["prediction"] for row in rows)
    assert 100 * right / len(rows) == pytest.approx(done.student["test"]["top1"])
    assert [row["index"] for row in rows] == [*map(str, range(len(rows)))]
    assert all(0 < float(row["score"]) <= 1 for row in rows)
    html = write_page(pages[0], done.folder / "report.html").read_text()
    assert f'<a href="{TEST_PREDICTIONS}">{TEST_PREDICTIONS}</a>' in html
    html = write_page(pages[0], tmp_path / "other.html").read_text()
    assert f'href="../{done.folder.parent.name}/run/{TEST_PREDICTIONS}"' in html


def test_several_labels_are_a_row_each_image(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "data: {name: digits/labels, train: {count: 64}, val: {count: 32}, test: {count: 20}}\n"
        "task: {name: multilabel}\nstudent: stillhouse/tiny\nmethod: none\n"
        "train: {epochs: 1}\nengine: {device: cpu, tensorboard: false}\n"
    )
    recipe = load.load(str(tmp_path / "recipe.yaml"))
    execute(recipe, tmp_path / "run", say=lambda _: None)
    session = Session.open(recipe, quiet=True)
    table = keep_test_predictions(tmp_path / "run", recipe, session)
    assert table is not None
    rows, test = read(table), session.sources.test
    assert len(rows) == 20
    for row, target in zip(rows, (test[i].target for i in range(20)), strict=True):
        assert isinstance(target, torch.Tensor)
        names = [test.classes[c] for c in target.nonzero().flatten().tolist()]
        assert row["labels"].split(";") == names or not names
        scores = [float(score) for score in row["scores"].split(";") if score]
        assert scores == sorted(scores, reverse=True) and all(s > 0.5 for s in scores)
        assert len(scores) == len([name for name in row["predictions"].split(";") if name])


def test_paths_are_those_of_the_files(tmp_path: Path) -> None:
    from PIL import Image

    from stillhouse.data.single.folder import FolderSource
    from stillhouse.data.source import take

    for name in ("a/1.png", "a/2.png", "b/3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4)).save(tmp_path / name)
    source = FolderSource(tmp_path, ("a", "b"), ("a/1.png", "a/2.png", "b/3.png"))
    part = take(source, torch.tensor([2, 0]), "part")
    assert [sample_path(part, i) for i in range(2)] == ["b/3.png", "a/1.png"]


# ------------------------------------------------------------------------------------ one rounding


def test_all_places_of_a_page_have_one_text_for_the_score(
    done: Result, pages: tuple[Page, Page]
) -> None:
    for page in pages:
        html = write_page(page, done.folder / "report.html").read_text()
        for who in ("teacher", "control", "student"):
            score = {"student": done.student, "control": done.control, "teacher": done.teacher}[who]
            assert score is not None
            text = f"{score['test']['top1']:.2f}"
            (bar,) = [bar for bar in page.bars if bar.who == who]
            assert f"{bar.value:.2f}" == text
            (calibration,) = [part for part in page.sections if part.name == "calibration"]
            tables = (named(page, "Metrics on the test split"), calibration.tables[0])
            cells = {
                format_cell(row[1], table.digits)
                for table in tables
                for row in table.rows
                if row[0] == who
            }
            assert cells == {text}
            assert html.count(f">{text}<") >= 3


@pytest.mark.parametrize("value", [95.2649, 95.26499, 81.44501, 7.0049999])
def test_a_number_is_rounded_once(value: float) -> None:
    (kept,) = restore(
        json.loads(json.dumps(keep([Section("a", "A", (), (Table(("b",), ((value,),)),))])))
    )
    assert format_cell(kept.tables[0].rows[0][0]) == format_cell(value) == f"{value:.2f}"


def test_a_share_and_a_percentage_are_rounded_alike() -> None:
    from stillhouse.explain.phrases import percent

    for right in range(2001):
        share, points = right / 2000, 100 * right / 2000
        assert percent(share) == f"{format_cell(points, 1)} %"
