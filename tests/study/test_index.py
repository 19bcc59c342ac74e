"""What lies in a folder of runs: answers where there are some, sentences elsewhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from alone import Alone
from quick import kept_teacher, quick, run
from stillhouse.errors import UserError
from stillhouse.study.index import list_runs, read_entry, read_run
from stillhouse.study.plan import make_plan
from stillhouse.study.runner import run_study
from stillhouse.study.sweep import run_sweep


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its control, one without, one that failed half-way, a study and a sweep."""
    folder = tmp_path_factory.mktemp("shelf") / "runs"
    kept_teacher()
    fast = quick("train.epochs=1")
    run(folder / "with", "train.epochs=1", "control=true")
    run(folder / "deeper" / "without", "train.epochs=1")
    run_study(make_plan(fast, "kd,mse", 2), folder / "study", Alone(), lambda _: None)
    run_sweep(make_plan(fast, "mse", 1), folder / "sweep", Alone(), lambda _: None, trials=1)
    shutil.copytree(folder / "with", folder / "half")
    (folder / "half" / "result.json").unlink()
    (folder / "foreign").mkdir()
    (folder / "foreign" / "notes.txt").write_text("not ours")
    (folder / "empty").mkdir()
    return folder


def test_everything_is_there_once(shelf: Path) -> None:
    found = {str(item.folder.relative_to(shelf)): item for item in list_runs(shelf)}
    assert {name: item.kind for name, item in found.items()} == {
        "deeper/without": "run",
        "foreign": "",
        "half": "",
        "study": "study",
        "sweep": "sweep",
        "with": "run",
    }


def test_a_run_says_its_answer(shelf: Path) -> None:
    said = read_entry(shelf / "with").summary
    _, result = read_run(shelf / "with")
    assert result.control is not None and result.teacher is not None
    student, control = (s["test"]["top1"] for s in (result.student, result.control))
    assert f"student top1 {student:.1f}, control {control:.1f}, teacher " in said
    assert said.endswith(f"{student - control:+.1f} (one seed: no interval can be given)")
    assert read_entry(shelf / "deeper" / "without").summary.endswith("no control to compare with")


def test_a_study_says_its_best(shelf: Path) -> None:
    said = read_entry(shelf / "study").summary
    assert said.startswith(("KD: student ", "MSE: student ")) and said.endswith("(best of 2)")


def test_what_cannot_be_read_has_its_sentence(shelf: Path) -> None:
    assert read_entry(shelf / "half").summary.startswith(
        f"{shelf / 'half'} is not finished; continue it with"
    )
    assert "is not a run folder: it has no recipe.yaml" in read_entry(shelf / "foreign").summary


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("result.json", "{", "result.json is damaged; run its recipe again with --overwrite"),
        ("result.json", "[]", "is damaged"),
        ("result.json", '{"headline": "top1"}', "was written by another version of stillhouse"),
        ("result.json", '{"format": 2, "headline": "top1", "test": {}}', "is damaged"),
        ("result.json", '{"format": 2, "headline": "top1", "test": {"top1": "a"}}', "is damaged"),
        ("control/result.json", "half", "control/result.json is damaged"),
        ("teacher.json", "{}", "teacher.json is damaged"),
        ("recipe.yaml", "a: [", "recipe.yaml:1: not valid YAML"),
        ("recipe.yaml", "data: 1\n", "recipe.yaml:1: data"),
    ],
)
def test_a_damaged_run_is_a_sentence_and_the_rest_is_shown(
    shelf: Path, tmp_path: Path, file: str, content: str, sentence: str
) -> None:
    shutil.copytree(shelf / "with", tmp_path / "runs" / "bad")
    shutil.copytree(shelf / "with", tmp_path / "runs" / "good")
    (tmp_path / "runs" / "bad" / file).write_text(content)
    bad, good = list_runs(tmp_path / "runs")
    assert sentence in bad.summary and bad.kind == ""
    assert good.kind == "run"


def test_a_run_of_before_has_no_format(shelf: Path, tmp_path: Path) -> None:
    shutil.copytree(shelf / "with", tmp_path / "old")
    path = tmp_path / "old" / "result.json"
    score = json.loads(path.read_text())
    del score["format"]
    path.write_text(json.dumps(score))
    with pytest.raises(UserError, match="written by another version"):
        read_run(tmp_path / "old")


def test_a_run_s_own_folder_is_a_shelf_of_one(shelf: Path) -> None:
    assert [item.folder for item in list_runs(shelf / "with")] == [shelf / "with"]
    assert [item.kind for item in list_runs(shelf / "study")] == ["study"]
    with pytest.raises(UserError, match="there is no folder"):
        list(list_runs(shelf / "nosuch"))
