"""Bytes that change on the disk: neither a checkpoint nor weights are taken up with them."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
import torch

from quick import kept_teacher, quick, run, student_bytes
from stillhouse.engine import train as training
from stillhouse.engine.checkpoints import load_checkpoint, previous_path, save_checkpoint
from stillhouse.engine.folder import lock_folder
from stillhouse.engine.interrupt import Stopped
from stillhouse.engine.run import Run
from stillhouse.errors import UserError
from stillhouse.recipes import load
from stillhouse.runs import training as executing
from stillhouse.runs.execute import evaluate_run

CONTROLLED = ("control=true", "train.epochs=1")
ALONE = ("method=none", "teacher=null", "train.epochs=1")


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place // 8] ^= 1 << place % 8
    path.write_bytes(content)


def test_a_flipped_bit_never_gives_another_state(tmp_path: Path) -> None:
    made, state = random.Random(0), {"weight": torch.randn(40, 7), "step": 3, "name": "run"}
    path, other = tmp_path / "state.pt", tmp_path / "other.pt"
    save_checkpoint(path, state)
    refused = 0
    for place in made.sample(range(8 * path.stat().st_size), 200):
        shutil.copy(path, other)
        flip(other, place)
        try:
            found = load_checkpoint(other)
        except UserError:
            refused += 1
            continue
        assert torch.equal(found.pop("weight"), state["weight"])  # a bit of the padding
        assert found == {"step": 3, "name": "run"}
    assert refused > 50


def test_the_checkpoint_before_is_kept_and_offered(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    for step in (1, 2, 3):
        save_checkpoint(path, {"step": step, "weight": torch.ones(9)})
    assert load_checkpoint(path)["step"] == 3
    assert load_checkpoint(previous_path(path))["step"] == 2
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError) as caught:
        load_checkpoint(path)
    remedy = "resume from the checkpoint before: rename state.previous.pt beside it to state.pt"
    assert str(caught.value) == f"{path} is damaged or not a checkpoint; {remedy}"


def test_a_run_resumes_from_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path / "whole", *ALONE)
    update = training.update

    def stop(run: Run, clock) -> None:
        update(run, clock)
        run.start = clock.step + 1
        training.state.save_run(run)
        if clock.step == 3:
            raise Stopped

    monkeypatch.setattr(training, "update", stop)
    with pytest.raises(Stopped):
        run(tmp_path / "run", *ALONE)
    monkeypatch.undo()
    state = tmp_path / "run" / "state.pt"
    flip(state, 4 * state.stat().st_size)
    with pytest.raises(UserError, match=r"rename state\.previous\.pt"):
        run(tmp_path / "run", *ALONE, resume=True)
    previous_path(state).rename(state)
    again = run(tmp_path / "run", *ALONE, resume=True)
    assert student_bytes(again) == student_bytes(whole)
    assert not previous_path(state).exists()  # a finished run keeps one


def test_weights_that_have_changed_are_not_read(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", *ALONE).folder
    recipe, student = load.load(folder), folder / "student.safetensors"
    before = evaluate_run(recipe, folder, "test", None).scores
    flip(student, 8 * (student.stat().st_size - 100))
    with pytest.raises(UserError, match=r"student\.safetensors is damaged: it differs from what"):
        evaluate_run(recipe, folder, "test", None)
    flip(student, 8 * (student.stat().st_size - 100))
    assert evaluate_run(recipe, folder, "test", None).scores == before


def test_a_kept_teacher_that_has_changed_does_not_teach(tmp_path: Path) -> None:
    teacher = kept_teacher()
    assert quick().teacher is not None
    place = 8 * (teacher.stat().st_size - 50)
    flip(teacher, place)
    try:
        with pytest.raises(UserError, match="is damaged: it differs from what was written"):
            run(tmp_path / "run")
    finally:
        flip(teacher, place)
    with pytest.raises(UserError, match="does not exist|no such file"):
        run(tmp_path / "other", f"teacher.weights={tmp_path / 'none.pt'}", "teacher.train=null")


def test_a_finished_training_has_its_table_and_no_half_written_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    write = executing.write_json

    def look(path: Path, value: object) -> None:
        if path.name == executing.RESULT:
            seen.append((path.parent / "metrics.csv").is_file())
        write(path, value)

    monkeypatch.setattr(executing, "write_json", look)
    half = tmp_path / "run" / "control" / ".state.pt.7.partial"
    lock_folder(tmp_path / "run", resume=True, recipe=load.digest(quick(*CONTROLLED))).release()
    half.parent.mkdir()
    half.write_bytes(b"half")
    run(tmp_path / "run", *CONTROLLED, resume=True)
    assert seen == [True, True] and not half.exists()
