"""Scores name their split, from result.json to the page; without a test split it is validation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from quick import WORDS, caller
from stillhouse.build.session import Session
from stillhouse.data.embedded.digits import make_raw
from stillhouse.data.record import find_change, measured_split
from stillhouse.errors import UserError
from stillhouse.files import write_json
from stillhouse.models import zoo
from stillhouse.models.weights import save_weights
from stillhouse.recipes import load
from stillhouse.report.run import run_page
from stillhouse.runs.doctor import check_recipe
from stillhouse.runs.execute import Result, evaluate_run, execute
from stillhouse.study.index import read_entry, read_run
from stillhouse.study.plan import make_plan
from stillhouse.study.results import read_study, write_plan


def write_digits(root: Path, split: str, count: int = 60) -> None:
    """Images of handwritten digits in class folders."""
    from PIL import Image

    source = make_raw(split, count=count)
    for key in range(count):
        sample = source[key]
        place = root / split / str(sample.target)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sample.image[0].numpy()).save(place / f"{key}.png")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("digits")
    for split in ("train", "val"):
        write_digits(root, split)
    save_weights(zoo.create("stillhouse/tiny", 10, 3), root / "teacher.safetensors")
    return root


def words(data: Path, *more: str) -> list[str]:
    teacher = f"{{name: stillhouse/tiny, weights: {data}/teacher.safetensors, gate: false}}"
    section = f"data={{name: folder, path: {data}, batch: 20}}"
    return [*WORDS, section, f"teacher={teacher}", "train.epochs=1", "control=true", *more]


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def done(data: Path, said: list[str]) -> Result:
    return execute(load.load("digits/raw", words(data)), data / "run", say=said.append)


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_the_result_tells_which_split_it_is_of(done: Result, said: list[str]) -> None:
    for score in (read(done.folder / "result.json"), read(done.folder / "control/result.json")):
        assert score["split"] == "validation" and score["test"] == {}
        assert 0 <= score["validation"]["top1"] <= 100
    teacher = read(done.folder / "teacher.json")
    assert teacher["test"] == {} and 0 <= teacher["validation"]["top1"] <= 100
    assert set(read(done.folder / "manifest.json")["data"]) == {"train", "val"}
    assert all("% on validation   " in line.replace(" on", "% on", 1) for line in done.lines())
    warnings = [line for line in said if "there is no test split" in line]
    assert len(warnings) == 1 and warnings[0].startswith("warning: ")
    assert "by the teacher gate" not in warnings[0]  # which is off here


def test_list_and_page_say_validation(done: Result) -> None:
    summary = read_entry(done.folder).summary
    assert " on validation: " in summary and "test" not in summary
    page = run_page(done.folder, explain=False)
    assert page.split == "validation" and page.tables[0].title == "Metrics on validation"
    assert sum("there is no test split" in note for note in page.notes) == 1
    assert len(page.bars) == 3


def test_diagnoses_say_validation(done: Result) -> None:
    sections = run_page(done.folder).sections
    named = [section for section in sections if section.name != "gradients"]
    assert named and all(section.heading.endswith(", on validation") for section in named)


def test_evaluation_chooses_the_split_that_there_is(
    done: Result, capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluate_run(load.load(done.folder), done.folder, None, None)
    assert (found.split, found.images) == ("validation", 60)
    assert found.scores == pytest.approx(done.student["validation"])
    call = caller(capsys)
    assert call("evaluate", str(done.folder)).out.startswith("student on validation, 60 images\n")
    error = call("evaluate", str(done.folder), "--split", "test").error
    assert error == "folder has no test split here; choose from train, val"


def test_the_doctor_says_that_there_is_no_test_split(data: Path) -> None:
    checks = {check.name: check for check in check_recipe(load.load("digits/raw", words(data)))}
    assert "60 train, 60 val, no test split" in checks["data"].message


def older(folder: Path) -> Path:
    """The files of a run as an older version wrote them, which called val `test`."""
    for place in (folder, folder / "control"):
        score, manifest = read(place / "result.json"), read(place / "manifest.json")
        del score["split"]
        write_json(place / "result.json", {**score, "test": score["validation"]})
        manifest["data"]["test"] = manifest["data"]["val"]
        write_json(place / "manifest.json", manifest)
    teacher = read(folder / "teacher.json")
    write_json(folder / "teacher.json", {**teacher, "test": teacher["validation"]})
    return folder


def test_runs_of_older_versions_are_read_by_their_manifest(done: Result, tmp_path: Path) -> None:
    folder = older(shutil.copytree(done.folder, tmp_path / "run"))
    result = read_run(folder)[1]
    assert result.split == "validation" and result.student["test"] == {}
    assert result.lines() == done.lines()
    bare = shutil.copytree(folder, tmp_path / "bare")
    for place in (bare, bare / "control"):
        (place / "manifest.json").unlink()  # nothing says that it was val
    assert read_run(bare)[1].split == "test"
    again = execute(load.load(folder), folder, resume=True, say=lambda _: None)
    assert again.student["validation"] == done.student["validation"]


def test_a_test_split_that_comes_later_is_a_change(
    done: Result, data: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(data, tmp_path / "digits", ignore=shutil.ignore_patterns("run"))
    recipe = load.load("digits/raw", words(copy))
    folder = shutil.copytree(done.folder, tmp_path / "run")
    (folder / "recipe.yaml").write_text(load.to_yaml(recipe))
    write_digits(copy, "test", 30)
    data_now = Session.open(recipe).describe_data()
    before = read(folder / "manifest.json")
    assert find_change(before, data_now) == "there was no test split, and is one now"
    assert find_change(before, data_now, ("train",)) == ""
    assert find_change(data_now, before) == "there was a test split, and is none now"
    assert (measured_split(before), measured_split(data_now)) == ("validation", "test")


def test_a_study_keeps_scores_of_one_split(done: Result, data: Path, tmp_path: Path) -> None:
    plan = make_plan(load.load("digits/raw", words(data, "control=false")), "kd", 2)
    write_plan(plan, tmp_path, "top1", "test")
    for folder in plan.folders.values():
        for seed, split in enumerate(("test", "validation")):
            place = tmp_path / folder / str(seed)
            place.mkdir(parents=True)
            score = {**done.student, "split": split, "test": {"top1": 50.0 + seed}}
            write_json(place / "result.json", score)
    study = read_study(tmp_path)
    assert study.split == "test" and [*study.arms[0].scores] == [0]
    reason = "its scores are of validation, and those of the study of test"
    assert study.arms[0].failures == {1: reason}
    assert study.values("kd") == {0: 50.0}


def test_runs_with_scores_of_different_splits_are_not_compared(
    done: Result, tmp_path: Path
) -> None:
    from stillhouse.report.compare import compare_page

    folder = shutil.copytree(done.folder, tmp_path / "tested")
    for file in ("result.json", "control/result.json", "teacher.json"):
        score = read(folder / file)
        write_json(folder / file, {**score, "split": "test", "test": score["validation"]})
    with pytest.raises(UserError, match=r"are of validation, and those of .* of test, so that"):
        compare_page(done.folder, folder)
