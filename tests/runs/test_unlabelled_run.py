"""Runs with images without labels: gain, resumption, caches of the teacher, changed images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from quick import caller, kept_teacher, metrics, quick, run, stop_at, student_bytes
from stillhouse.build.session import Session
from stillhouse.engine.interrupt import Stopped
from stillhouse.errors import UserError
from stillhouse.runs.execute import evaluate_run
from stillhouse.runs.teacher import member_folder, member_recipe

MORE = "data.unlabelled={name: digits/raw, count: 320}"
SHORT = ("data.train.count=60", MORE, "data.batch=20")


def test_a_run_says_how_many_images_have_no_labels(tmp_path: Path) -> None:
    said: list[str] = []
    done = run(tmp_path / "run", *SHORT, say=said.append)
    sentence = "training uses 60 images with labels and 320 without"
    assert f"data: {sentence}" in said and done.student["notes"] == [sentence]
    manifest = json.loads((done.folder / "manifest.json").read_text())
    assert manifest["samples"]["train"] == 60 and manifest["samples"]["unlabelled"] == 320
    assert done.student["of"] == 2 * (380 // 20)
    terms = {key for line in metrics(done.folder) for key in line}
    assert any("class/kd" in key for key in terms)


def test_a_teacher_is_trained_on_labelled_images_only() -> None:
    plain, more = quick("data.train.count=60"), quick(*SHORT[:2])
    folders = [member_folder(member_recipe(r, r.teacher)) for r in (plain, more)]
    assert folders[0] == folders[1]
    session = Session.open(more)
    assert len(session.sources.training) == 380
    assert len(session.labelled().sources.training) == 60
    assert session.labelled().describe_data()["data"].keys() == {"train", "val", "test"}


def test_a_stopped_run_resumes_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = f"teacher.weights={kept_teacher()}"
    whole = run(tmp_path / "whole", *SHORT, weights)
    with monkeypatch.context() as patch:
        stop_at(patch, 13)
        with pytest.raises(Stopped):
            run(tmp_path / "run", *SHORT, weights)
    torch.rand(7)
    resumed = run(tmp_path / "run", *SHORT, weights, resume=True)
    assert student_bytes(resumed) == student_bytes(whole)
    assert metrics(resumed.folder) == metrics(whole.folder)


def test_caches_of_the_teacher_do_not_change_the_student(tmp_path: Path) -> None:
    weights = f"teacher.weights={kept_teacher()}"
    plain = run(tmp_path / "plain", *SHORT, weights, "teacher.remember=false")
    memory = run(tmp_path / "memory", *SHORT, weights, "teacher.remember=true")
    store = f"teacher.store={{precision: full, path: {tmp_path / 'store'}}}"
    disk = run(tmp_path / "disk", *SHORT, weights, "teacher.remember=false", store)
    assert student_bytes(plain) == student_bytes(memory)
    assert abs(plain.student["test"]["loss"] - disk.student["test"]["loss"]) < 1e-5


def test_training_without_any_label(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        f"teacher.weights={kept_teacher()}",
        "data.unlabelled={name: digits/raw, count: 300, alone: true}",
        "data.batch=20",
    )
    done = run(tmp_path / "run", *words, "train.epochs=20")
    assert done.student["notes"] == ["all 300 training images are without labels"]
    assert done.student["test"]["top1"] > 20  # chance is 10
    with pytest.raises(UserError, match="no training image has labels; evaluate"):
        evaluate_run(quick(*words), done.folder, "train", None)
    scores = evaluate_run(quick(*words, "train.epochs=20"), done.folder, "test", None)
    assert scores.scores["top1"] == pytest.approx(done.student["test"]["top1"])
    with pytest.raises(UserError, match="method none trains on labels"):
        run(tmp_path / "none", *words, "method=none")
    call = caller(capsys)
    found = call("doctor", "digits/raw", *words)
    assert found.code == 0 and "all 300 training images are without labels" in " ".join(
        found.out.split()
    )
