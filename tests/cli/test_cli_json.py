"""`--json`: one object on stdout, and everything else on stderr."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from alone import Alone
from quick import WORDS, Call, Ended, caller, kept_teacher, run
from stillhouse.cli import studies
from stillhouse.engine.folder import lock_folder
from stillhouse.errors import UserError
from stillhouse.recipes.schema import Recipe
from stillhouse.runs.training import Score
from stillhouse.study import jobs

FAST = (*WORDS, "train.epochs=1")


def alone(options: studies.WorkerOptions, count: int) -> Iterator[Alone]:
    """All jobs in this process."""
    yield Alone()


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    kept_teacher()
    return caller(capsys)


def read(ended: Ended) -> dict[str, Any]:
    """The object; everything on stdout belongs to it."""
    content = json.loads(ended.out, parse_constant=lambda text: pytest.fail(text))
    assert isinstance(content, dict)
    return content


def test_a_run_prints_the_scores_of_each_role_by_split(call: Call, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = ("control=true", "--out", folder, "--no-explain", "--json")
    ended = call("run", "digits/raw", *FAST, *words)
    content = read(ended)
    assert ended.code == 0 and "student: training stillhouse/tiny with kd, 1 epoch" in ended.err
    assert content["folder"] == str(folder) and content["headline"] == "top1"
    assert content["report"] == str(folder / "report.html")
    assert list(content["scores"]) == ["teacher", "control", "student"]
    for role, file in (("control", "control/result.json"), ("student", "result.json")):
        result = json.loads((folder / file).read_text())
        result["validation"].pop("step", None)
        assert content["scores"][role] == {k: result[k] for k in ("validation", "test")}
    assert set(content["scores"]["teacher"]) == {"validation", "test"}

    evaluated = read(call("evaluate", folder, "--split", "val", "--json"))
    student = content["scores"]["student"]["validation"]
    assert evaluated["scores"] == {"student": {"validation": pytest.approx(student)}}


def test_a_study_prints_scores_by_arm_and_seed(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies.WorkerOptions, "workers", contextmanager(alone))
    words = ("--methods", "kd,mse", "--seeds", "2", "--out", tmp_path / "study")
    content = read(call("study", "digits/raw", *FAST, *words, "--no-explain", "--json"))
    scores = content["scores"]
    assert list(scores["teacher"]) and list(scores["control"]) == ["none"]
    assert list(scores["student"]) == ["kd", "mse"]
    values = [scores["student"]["kd"][seed]["test"]["top1"] for seed in ("0", "1")]
    (row,) = [row for row in content["table"] if row["method"] == "kd"]
    assert row["mean"] == pytest.approx(sum(values) / 2) and content["failures"] == {}


def test_a_study_with_a_failed_run_prints_the_others_and_ends_with_an_error(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies.WorkerOptions, "workers", contextmanager(alone))
    run_job = jobs.run_job

    def fail(recipe: Recipe, folder: Path, **options: Any) -> Score:
        if recipe.method[0].name == "mse":
            raise UserError("its network is too large; choose another")
        return run_job(recipe, folder, **options)

    monkeypatch.setattr(jobs, "run_job", fail)
    words = ("--methods", "kd,mse", "--seeds", "1", "--out", tmp_path / "study", "--no-explain")
    ended = call("study", "digits/raw", *FAST, *words, "--json")
    content = read(ended)
    assert "1 run failed" in ended.error
    assert content["failures"] == {"mse": {"0": "its network is too large; choose another"}}
    assert content["scores"]["student"]["mse"] == {}
    assert content["scores"]["student"]["kd"]["0"]["test"]["top1"] > 0


def test_the_list_of_runs(call: Call, tmp_path: Path) -> None:
    done = run(tmp_path / "runs" / "a", "train.epochs=1")
    (tmp_path / "runs" / "notes").mkdir()
    (tmp_path / "runs" / "notes" / "b.txt").write_text("not ours")
    lock_folder(tmp_path / "runs" / "b", resume=False).release()  # as a refused run leaves it
    content = read(call("runs", "ls", tmp_path / "runs", "--json"))
    first, second = content["runs"]
    assert first["kind"] == "run" and first["folder"] == str(tmp_path / "runs" / "a")
    assert first["scores"]["student"]["test"] == done.student["test"]
    assert second["kind"] == "" and "is not a run folder" in second["summary"]
    assert "scores" not in second and content["unstarted"] == 1


def test_checks_with_a_failure(call: Call) -> None:
    content = read(call("doctor", "digits/raw", *FAST, "--json"))
    assert content["passed"] is True and len(content["checks"]) > 5
    ended = call("doctor", "digits/raw", *FAST, "data.batch=999", "--json")
    content = read(ended)
    assert ended.code == 2 and content["passed"] is False
    failed = [check for check in content["checks"] if check["passed"] is False]
    assert len(failed) == 1 and "999" in failed[0]["message"]


def test_a_number_that_json_lacks_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    from stillhouse.cli.json_output import print_json

    print_json({"a": math.nan, "b": [math.inf, 1.5]})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 1.5]}


def test_a_wrong_word_leaves_stdout_empty(call: Call, tmp_path: Path) -> None:
    ended = call("run", "digits/raw", "trian.epochs=1", "--out", tmp_path / "run", "--json")
    assert "unknown key trian" in ended.error and ended.out == ""
