"""The index of runs: a summary of each, or why it cannot be read."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from alone import Alone
from quick import kept_teacher, quick, run
from stillhouse.engine.folder import lock_folder
from stillhouse.errors import UserError
from stillhouse.study.index import list_runs, read_entry, read_run
from stillhouse.study.plan import make_plan
from stillhouse.study.runner import run_study
from stillhouse.study.sweep import run_sweep


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs with and without a control, an unfinished run, a study and a sweep."""
    folder = tmp_path_factory.mktemp("runs") / "runs"
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
    lock_folder(folder / "failed", resume=False).release()  # as a run that is refused leaves it
    return folder


def test_each_run_is_listed_once(runs: Path) -> None:
    result = {str(item.folder.relative_to(runs)): item for item in list_runs(runs)}
    assert {name: item.kind for name, item in result.items()} == {
        "deeper/without": "run",
        "failed": "unstarted",
        "foreign": "",
        "half": "",
        "study": "study",
        "sweep": "sweep",
        "with": "run",
    }


def test_the_summary_of_a_run(runs: Path) -> None:
    summary = read_entry(runs / "with").summary
    _, result = read_run(runs / "with")
    assert result.control is not None and result.teacher is not None
    student, control = (s["test"]["top1"] for s in (result.student, result.control))
    assert (
        f"student top1 {student:.1f}, control {control:.1f}, teacher " in summary
        and " on test: " in summary
    )
    assert summary.endswith(f"{student - control:+.1f} (one seed: no interval can be given)")
    assert read_entry(runs / "deeper" / "without").summary.endswith("no control to compare with")


def test_the_summary_of_a_study_is_its_best_arm(runs: Path) -> None:
    summary = read_entry(runs / "study").summary
    assert summary.startswith(("KD: student ", "MSE: student ")) and summary.endswith("(best of 2)")


def test_unreadable_folders_are_listed_with_the_reason(runs: Path) -> None:
    assert read_entry(runs / "half").summary.startswith(
        f"{runs / 'half'} is not finished; continue it with"
    )
    assert "is not a run folder: it has no recipe.yaml" in read_entry(runs / "foreign").summary


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("result.json", "{", "result.json is damaged; run its recipe again with --overwrite"),
        ("result.json", "[]", "is damaged"),
        ("result.json", '{"headline": "top1"}', "was written by another version of stillhouse"),
        ("result.json", '{"format": 2, "headline": "top1", "test": {}}', "is damaged"),
        ("result.json", '{"format": 2, "headline": "top1", "test": {"top1": "a"}}', "is damaged"),
        ("control/result.json", "half", "control/result.json is damaged"),
        ("teacher.json", "{}", "teacher.json is damaged"),
        ("result.json", "[" * 100_000, "is damaged"),
        ("result.json", '{"format": 2, "headline": "", "test": {"": 1}}', "is damaged"),
        ("result.json", '{"format": 2, "test": {"top1": 1}}', "is damaged"),
        ("result.json", '{"format": 2, "headline": null, "test": {"top1": 1}}', "is damaged"),
        ("result.json", '{"format": 2, "headline": ["top1"], "test": {"top1": 1}}', "is damaged"),
        (
            "result.json",
            f'{{"format": 2, "headline": "a", "test": {{"a": 1{"0" * 400}}}}}',
            "is dam",
        ),
        ("result.json", '{"format": 2, "headline": "a", "test": {"a": 1, "b": "2"}}', "is damaged"),
        ("result.json", '{"format": 2, "headline": "a\\ud800", "test": {"a": 1}}', "is damaged"),
        ("teacher.json", '{"test": {"top5": 1}}', "teacher.json is damaged"),
        ("control/result.json", '{"format": 2, "headline": "a", "test": {"a": 1}}', "is damaged"),
        ("recipe.yaml", "data: " + "[" * 100_000, "more than 40 mappings"),
        ("recipe.yaml", "extends: digits/numbers\n", "extends other files"),
        ("recipe.yaml", "a: [", "recipe.yaml:1: not valid YAML"),
        ("recipe.yaml", "data: 1\n", "recipe.yaml:1: data"),
    ],
)
def test_a_damaged_run_does_not_hide_the_others(
    runs: Path, tmp_path: Path, file: str, content: str, message: str
) -> None:
    shutil.copytree(runs / "with", tmp_path / "runs" / "bad")
    shutil.copytree(runs / "with", tmp_path / "runs" / "good")
    (tmp_path / "runs" / "bad" / file).write_text(content)
    bad, good = list_runs(tmp_path / "runs")
    assert message in bad.summary and bad.kind == ""
    assert good.kind == "run"


def test_a_result_of_another_version_is_refused(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "with", tmp_path / "old")
    path = tmp_path / "old" / "result.json"
    score = json.loads(path.read_text())
    del score["format"]
    path.write_text(json.dumps(score))
    with pytest.raises(UserError, match="written by another version"):
        read_run(tmp_path / "old")


def test_the_folder_of_a_run_lists_only_itself(runs: Path) -> None:
    assert [item.folder for item in list_runs(runs / "with")] == [runs / "with"]
    assert [item.kind for item in list_runs(runs / "study")] == ["study"]
    with pytest.raises(UserError, match="there is no folder"):
        list(list_runs(runs / "nosuch"))


def test_links_that_loop_and_folders_that_cannot_be_read(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(runs / "with", tmp_path / "some" / "run")
    (tmp_path / "some" / "above").symlink_to(tmp_path)
    (tmp_path / "locked").mkdir()
    listing = Path.iterdir

    def iterdir(self: Path) -> Iterator[Path]:
        if self.name == "locked":
            raise PermissionError(errno.EACCES, "Permission denied")
        return listing(self)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    locked, run = list_runs(tmp_path)
    assert locked.summary == f"{tmp_path / 'locked'} cannot be read: Permission denied"
    assert run.folder == tmp_path / "some" / "run" and run.kind == "run"


def test_an_unforeseen_error_is_the_summary_of_its_folder(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> str:
        raise ZeroDivisionError("of a run")

    monkeypatch.setattr("stillhouse.study.index.summarize_run", fail)
    assert read_entry(runs / "with").summary == "ZeroDivisionError: of a run"
    assert read_entry(runs / "study").kind == "study"
