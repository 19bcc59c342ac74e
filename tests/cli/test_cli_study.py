"""`study` and `sweep`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from alone import Alone
from quick import WORDS, Call, caller, kept_teacher
from stillhouse.cli import studies
from stillhouse.recipes import load

FAST = (*WORDS, "train.epochs=1")


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """The command, with all jobs in this process."""
    from contextlib import contextmanager

    kept_teacher()
    monkeypatch.setattr(studies.WorkerOptions, "workers", contextmanager(alone))
    return caller(capsys)


def alone(options: studies.WorkerOptions, count: int):
    yield Alone()


def test_a_study_prints_results_and_writes_tables_and_a_report(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("--methods", "kd,mse", "--seeds", "2", "--against", "kd", "paper={kd: 91.5}")
    ended = call("study", "digits/raw", *FAST, *words)
    assert ended.code == 0 and "Traceback" not in ended.err
    lines = ended.out.splitlines()
    assert {line.partition(":")[0] for line in lines[:2]} == {"KD", "MSE"}
    assert lines[2].startswith("search: none")
    assert lines[3:] == [
        "table: runs/raw-study/table.csv",
        "report: runs/raw-study/report.html",
    ]
    assert "[6/6] " in ended.err and "3 arms x 2 seeds: 6 runs" in ended.err
    rows = [*csv.DictReader(Path("runs/raw-study/table.csv").read_text().splitlines())]
    means = [float(row["mean"]) for row in rows[1:]]
    assert means == sorted(means, reverse=True) and rows[0]["method"] == "none"
    assert {row["method"]: row["paper"] for row in rows}["kd"] == "91.5"
    page = Path("runs/raw-study/report.html").read_text()
    assert all(part in page for part in ("Ranking of the classes", "over kd", "p (Holm)", "91.5"))
    assert len(page.encode()) < 5_000_000

    again = call("study", "runs/raw-study", "--no-explain", "--by", "best")
    assert again.code == 0 and again.out.splitlines()[3:] == lines[3:]
    assert "step" not in again.err and "the best epoch" in Path(lines[4][8:]).read_text()
    table = call("report", "runs/raw-study", "--table", "json", "--against", "mse")
    assert json.loads(table.out)["against"] == "mse" and table.err == ""
    for kind, part in (("latex", "\\toprule"), ("markdown", "| method |"), ("csv", "method,")):
        assert part in call("report", "runs/raw-study", "--table", kind).out


def test_failed_runs_are_an_error_after_the_results(call: Call, tmp_path: Path) -> None:
    methods = ("--methods", "kd,mse:weight=1e12", "--seeds", "1")
    ended = call("study", "digits/raw", *FAST, *methods, "--out", tmp_path / "s", "--no-explain")
    assert ended.error.startswith("1 run failed; the first error: ")
    assert "not finite" in ended.error and "retry with `stillhouse study" in ended.error
    assert ended.out.startswith("KD: student ")
    assert "not finite" in (tmp_path / "s" / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "kdd"], "--methods: unknown method 'kdd' in 'kdd'; did you mean 'kd'"),
        (["--methods", "kd", "--against", "mse"], "--against: there is no arm 'mse'; choose from"),
        (["--grid", "method.nosuch=1"], "no method has an option 'nosuch'"),
        (["--teachers", "stillhouse/nosuch"], "has no network 'nosuch'"),
        (["trian.epochs=1"], "unknown key trian"),
    ],
)
def test_a_wrong_argument_is_one_error_and_trains_nothing(
    call: Call, tmp_path: Path, words: list[str], message: str
) -> None:
    ended = call("study", "digits/raw", *FAST, *words, "--out", tmp_path / "study")
    assert message in ended.error and ended.out == ""
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize(
    "words",
    [["--seeds", "0"], ["--jobs", "0"], ["--by", "middle"], ["--interval", "z"], ["--seeds", "x"]],
)
def test_a_wrong_option_is_refused(call: Call, words: list[str]) -> None:
    assert call("study", "digits/raw", *words).code == 2


def test_an_interrupted_study_prints_how_to_continue(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import signal

    from stillhouse.engine import train

    set_rates, seen = train.set_rates, []

    def interrupted(run, clock) -> None:
        seen.append(clock.step)
        if len(seen) == 8:
            signal.raise_signal(signal.SIGINT)
        set_rates(run, clock)

    words = ("--methods", "kd", "--seeds", "2", "--out", tmp_path / "study")
    with monkeypatch.context() as patch:
        patch.setattr(train, "set_rates", interrupted)
        ended = call("study", "digits/raw", *FAST, *words)
    assert ended.code == 130 and "Traceback" not in ended.err
    command = ended.err.splitlines()[-1].partition("Continue with: stillhouse ")[2].split()
    assert command == ["study", str(tmp_path / "study")]
    assert call(*command, "--no-explain").code == 0


def test_a_sweep_prints_the_next_command(call: Call, tmp_path: Path) -> None:
    words = ("--methods", "kd,mse", "--trials", "2", "--out", tmp_path / "sweep")
    ended = call("sweep", "digits/raw", *FAST, *words)
    assert ended.code == 0
    kd, mse, chosen, then = ended.out.splitlines()
    with (tmp_path / "sweep" / "trials.csv").open() as file:
        trials = [*csv.DictReader(file)]
    for label, line in (("kd", kd), ("mse", mse)):
        own = [trial for trial in trials if trial["method"] == label]
        best = max(own, key=lambda trial: float(trial["validation"]))
        options = best["options"].replace("method.", "").replace(" ", ", ")
        score = f"top1 {float(best['validation']):.2f} on validation (2 trials)"
        assert line == f"{label}: {options}: {score}"
    assert chosen == f"chosen: {tmp_path / 'sweep' / 'chosen.yaml'}"
    assert then == f"next: stillhouse study {tmp_path / 'sweep' / 'chosen.yaml'} --seeds 5"
    command = then.removeprefix("next: stillhouse ").replace("--seeds 5", "--seeds 1").split()
    study = call(*command, "--out", tmp_path / "study", "--no-explain")
    assert study.code == 0
    assert "search: 2 trials on validation each for " in study.out
    assert (
        "Hyperparameter search on the validation split"
        in (tmp_path / "study" / "report.html").read_text()
    )
    recipe = load.load(tmp_path / "study" / "study.yaml")
    assert recipe.study is not None and recipe.study.searched["kd"].trials == 2


def test_a_wrong_sweep_is_one_error(call: Call, tmp_path: Path) -> None:
    words = ("digits/raw", *FAST, "--out", tmp_path / "sweep")
    assert "must be KEY=LOW..HIGH" in call("sweep", *words, "--space", "beta").error
    assert "has no option to search" in call("sweep", *words, "--methods", "mse:weight=1").error


def test_a_sweep_without_its_extra_says_how_to_install_it(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "optuna", None)
    assert "pip install 'stillhouse[sweep]'" in call("sweep", "digits/raw").error


def test_ray_without_its_extra_says_how_to_install_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    ended = caller(capsys)("study", "digits/raw", "--ray", "auto")
    assert "pip install 'stillhouse[ray]'" in ended.error
