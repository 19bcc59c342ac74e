"""Cells side by side: results as they come, a stop that reaches all, nothing trained twice."""

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from stillhouse.engine.interrupt import Stopped
from stillhouse.errors import UserError
from stillhouse.recipes import load
from stillhouse.recipes.schema import Network
from stillhouse.study.cells import Cell, crew, processes

QUICK = ("method=none", "teacher=null", "engine.tensorboard=false", "engine.device=cpu")


def cells(folder: Path, epochs: float, count: int = 2) -> list[Cell]:
    recipe = load.load("digits/raw", [*QUICK, f"train.epochs={epochs}"])
    return [Cell(replace(recipe, seed=seed), folder / f"none-{seed}") for seed in range(count)]


def test_a_stop_reaches_all_and_what_is_left_goes_on_to_the_same_end(tmp_path: Path) -> None:
    done: list[str] = []
    long = cells(tmp_path, 400)
    with pytest.raises(Stopped), crew(2) as workers:
        threading.Thread(target=ask_once_saved, args=(tmp_path,), daemon=True).start()
        workers.train(long, lambda cell, score: done.append(cell.folder.name))
    assert done == [] and any((cell.folder / "state.pt").exists() for cell in long)
    short = cells(tmp_path / "short", 2)
    with crew(2) as workers:
        first = workers.train(short, lambda cell, score: done.append(cell.folder.name))
        again = workers.train(short, lambda cell, score: None)
    assert sorted(done) == ["none-0", "none-1"]
    assert first == again and set(first) == {cell.folder for cell in short}
    assert first[short[0].folder]["test"] != first[short[1].folder]["test"]
    assert (short[0].folder / "recipe.yaml").is_file()  # a cell is a run like any other


def ask_once_saved(folder: Path) -> None:
    for _ in range(600):
        if list(folder.glob("*/state.pt")):
            break
        time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGINT)


def test_a_cell_that_cannot_be_trained_says_why(tmp_path: Path) -> None:
    (cell,) = cells(tmp_path, 1, count=1)
    wrong = replace(cell.recipe, student=Network("stillhouse/tinny"))
    with pytest.raises(UserError, match="tinny"), crew(1) as workers:
        workers.train([cell._replace(recipe=wrong)], lambda cell, score: None)


def test_there_is_a_process_for_each_core_that_may_be_used() -> None:
    assert 1 <= processes() <= (os.cpu_count() or 1)
