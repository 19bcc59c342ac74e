"""Two processes that need the same teacher, which nobody has trained yet."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from quick import quick, run
from stillhouse.engine.folder import FolderInUse, lock_folder
from stillhouse.engine.interrupt import Stopped
from stillhouse.recipes import load
from stillhouse.runs import training as executing
from stillhouse.runs.execute import run_job
from stillhouse.runs.teacher import member_folder, member_recipe

WORDS = ("teacher.train.epochs=1", "train.epochs=1", "teacher.gate=false")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLHOUSE_CACHE", str(tmp_path / "cache"))


def teacher_of(*words: str):
    recipe = quick(*WORDS, *words)
    assert recipe.teacher is not None
    training = member_recipe(recipe, recipe.teacher)
    return training, member_folder(training)


def held(training, folder: Path):
    """The lock of another process: a lock belongs to an open file, so that this one waits, too."""
    return lock_folder(folder, resume=True, recipe=load.digest(training))


def test_the_second_run_waits_for_the_teacher_and_says_so(tmp_path: Path) -> None:
    training, folder = teacher_of()
    lock, said = held(training, folder), []
    waiting = f"teacher: waiting for process {os.getpid()}, which trains it in {folder}"

    def say(text: str) -> None:
        said.append(text)
        if text == waiting:
            lock.release()

    assert run(tmp_path / "run", *WORDS, say=say).teacher is not None
    assert said.count(waiting) == 1


def test_a_job_of_a_study_waits_for_its_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    training, folder = teacher_of()
    lock = held(training, folder)
    monkeypatch.setattr("stillhouse.runs.execute.LOCK_TIMEOUT", 0.0)
    monkeypatch.setattr(executing, "lock_owner", lambda path: lock.release())
    assert run_job(training, folder)["steps"] == 6


def test_a_wait_can_be_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training, folder = teacher_of()
    monkeypatch.setattr(executing, "lock_owner", lambda path: os.kill(os.getpid(), signal.SIGINT))
    with held(training, folder), pytest.raises(Stopped):
        run(tmp_path / "run", *WORDS)


def test_the_folder_of_a_run_is_not_waited_for(tmp_path: Path) -> None:
    words = ("method=none", "teacher=null", "train.epochs=1")
    with held(quick(*words), tmp_path / "run"), pytest.raises(FolderInUse, match="wait until it"):
        run(tmp_path / "run", *words, resume=True)
