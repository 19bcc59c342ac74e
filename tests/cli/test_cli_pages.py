"""`report`, `explain` and `runs ls`."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from quick import Call, caller, kept_teacher, quick, run
from stillhouse.runs.training import RESULT


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    return caller(capsys)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages") / "runs"
    kept_teacher()
    run(folder / "kd", "train.epochs=1", "control=true")
    run(folder / "mse", "train.epochs=1", "method=mse")
    return folder


def test_explain_prints_findings_and_writes_the_report(call: Call, runs: Path) -> None:
    ended = call("explain", str(runs / "kd"), "--limit", "100")
    assert ended.code == 0
    titles = [line for line in ended.out.splitlines() if not line.startswith(("  ", "report:"))]
    assert "Agreement, on test" in titles and "Gradients of the loss terms" in titles
    assert ended.out.splitlines()[-1] == f"report: {runs / 'kd' / 'report.html'}"
    page = (runs / "kd" / "report.html").read_text()
    assert all(title in page for title in titles)


def test_explain_of_two_runs_prints_findings(
    call: Call, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = call("explain", str(runs / "kd"), str(runs / "mse"), "--limit", "60")
    lines = ended.out.splitlines()
    assert ended.code == 0 and "Agreement, on test" in lines and lines[-1] == "report: compare.html"
    assert any(line.startswith("  mse agrees with the teacher on ") for line in lines)


def test_explain_writes_files(call: Call, runs: Path, tmp_path: Path) -> None:
    words = ("explain", str(runs / "kd"), "--limit", "60", "--layout", "pca", "--files")
    ended = call(*words, str(tmp_path / "files"))
    assert ended.code == 0
    counts = [len([*(tmp_path / "files").glob(f"*.{kind}")]) for kind in ("svg", "png", "csv")]
    output = ended.out.splitlines()[-1]
    result = [int(number) for number in re.findall(r"(\d+) (?:charts|images|tables)", output)]
    assert output.startswith(f"files: {tmp_path / 'files'} (") and result[:2] == counts[:2]
    assert min(counts) > 5 and 0 < result[2] <= counts[2]
    assert (tmp_path / "files" / "calibration.csv").is_file()
    assert (tmp_path / "files" / "calibration-reliability-diagram.svg").is_file()


def test_explain_checks_the_folder_for_files_first(
    call: Call, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stillhouse.runs import diagnosis

    monkeypatch.setattr(diagnosis, "diagnose_run", lambda *_: pytest.fail("worked for nothing"))
    (tmp_path / "file").write_text("x")
    output = call("explain", str(runs / "kd"), "--files", str(tmp_path / "file")).error
    assert output == f"{tmp_path / 'file'} is a file; name a folder for the files"


def test_explain_compares_two_runs(
    call: Call, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = call("explain", str(runs / "kd"), str(runs / "mse"), "--layout", "pca")
    assert ended.code == 0 and "report: compare.html" in ended.out
    assert "projected by PCA" in ended.out
    assert "mse" in ended.out and "kd" in ended.out


def test_report_rewrites_the_page_without_training(call: Call, runs: Path) -> None:
    (runs / "mse" / "report.html").unlink(missing_ok=True)
    ended = call("report", str(runs / "mse"))
    assert ended.code == 0 and ended.out == f"report: {runs / 'mse' / 'report.html'}\n"
    page = (runs / "mse" / "report.html").read_text()
    assert "no control to compare with" in page


def test_report_compares_two_runs(call: Call, runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "two.html"
    words = ("--compare", str(runs / "kd"), str(runs / "mse"), "--out", str(out))
    assert call("report", *words).out == f"report: {out}\n"
    page = out.read_text()
    assert "The two recipes differ in method" in page and "no interval can be given" in page
    one = call("report", "--compare", str(runs / "kd")).error
    assert "--compare needs exactly two runs, got 1" in one


def test_a_report_of_several_folders_names_unreadable_ones(
    call: Call, runs: Path, tmp_path: Path
) -> None:
    shutil.copytree(runs / "kd", tmp_path / "half")
    (tmp_path / "half" / RESULT).unlink()
    out = tmp_path / "all.html"
    folders = (runs / "kd", runs / "mse", tmp_path / "half", tmp_path / "nosuch")
    ended = call("report", *map(str, folders), "--out", str(out))
    assert ended.code == 0
    page = out.read_text()
    assert page.count("<article") == 2 and "KD: student" in page and "MSE: student" in page
    assert f"{tmp_path / 'half'} is not finished" in page and "there is no folder" in page


@pytest.mark.parametrize("command", ["report", "explain"])
def test_a_folder_without_a_run_is_an_error(call: Call, tmp_path: Path, command: str) -> None:
    assert "there is no folder" in call(command, str(tmp_path / "nosuch")).error
    assert "is not a run folder: it has no recipe.yaml" in call(command, str(tmp_path)).error


def test_a_folder_of_runs_is_an_error_with_a_remedy(call: Call, runs: Path) -> None:
    assert f"is not a run but a folder of runs; name one of `stillhouse runs ls {runs}`" in (
        call("report", str(runs)).error
    )


def test_a_table_needs_a_study(call: Call, runs: Path) -> None:
    assert "is not a study folder" in call("report", str(runs / "kd"), "--table", "csv").error


def test_runs_on_other_data_are_not_compared(call: Call, runs: Path, tmp_path: Path) -> None:
    run(tmp_path / "other", "train.epochs=1", "method=none", "teacher=null", "data.batch=16")
    output = call("report", "--compare", str(runs / "kd"), str(tmp_path / "other")).error
    assert "were run on different data" in output


def test_runs_ls_lists_all_runs(
    call: Call, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = call("runs", "ls", str(runs))
    assert ended.code == 0
    assert "KD: student top1" in ended.out and "MSE: student top1" in ended.out
    monkeypatch.chdir(tmp_path)
    assert "there is no folder runs" in call("runs", "ls").error
    (tmp_path / "runs").mkdir()
    assert "there are no runs in runs" in call("runs", "ls").error


def test_runs_ls_fits_a_narrow_terminal(
    call: Call, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    words = [line for line in call("runs", "ls", str(runs)).out.splitlines() if "/" not in line]
    assert words and all(len(line) <= 30 for line in words)


def test_a_report_without_the_data_still_has_the_scores(
    call: Call, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the data, as on another machine, a note says what is missing."""
    from stillhouse.build.session import Session
    from stillhouse.errors import UserError

    def gone(*_: object, **__: object) -> None:
        raise UserError("data/train does not exist; give data.path")

    shutil.copytree(runs / "kd", tmp_path / "kd")
    monkeypatch.setattr(Session, "open", gone)
    assert call("report", str(tmp_path / "kd")).code == 0
    page = (tmp_path / "kd" / "report.html").read_text()
    assert "data/train does not exist" in page and "KD: student top1" in page
    assert quick().title in page
