"""Cells side by side: results as they come, a stop that reaches all, nothing trained twice."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from stillhouse.engine.interrupt import Stopped
from stillhouse.recipes import load
from stillhouse.recipes.schema import Network
from stillhouse.study import jobs as cell_room
from stillhouse.study.jobs import DIED, Cell, Failure, begin, crew, processes, read_failure

QUICK = ("method=none", "teacher=null", "engine.tensorboard=false", "engine.device=cpu")


def cells(folder: Path, epochs: float, count: int = 2) -> list[Cell]:
    recipe = load.load("digits/raw", [*QUICK, f"train.epochs={epochs}"])
    return [Cell(replace(recipe, seed=seed), folder / f"none-{seed}") for seed in range(count)]


def silent(cell: Cell, outcome: Any) -> None:
    pass


def test_a_stop_reaches_all_and_what_is_left_goes_on_to_the_same_end(tmp_path: Path) -> None:
    done: list[str] = []
    long = cells(tmp_path, 400)
    with pytest.raises(Stopped), crew(2) as workers:
        threading.Thread(target=once_saved, args=(tmp_path, interrupt), daemon=True).start()
        workers.train(long, lambda cell, score: done.append(cell.folder.name))
    assert done == [] and any((cell.folder / "state.pt").exists() for cell in long)
    short = cells(tmp_path / "short", 2)
    with crew(2) as workers:
        first = workers.train(short, lambda cell, score: done.append(cell.folder.name))
        again = workers.train(short, silent)
    assert sorted(done) == ["none-0", "none-1"]
    assert first == again and set(first) == {cell.folder for cell in short}
    assert first[short[0].folder]["test"] != first[short[1].folder]["test"]
    assert (short[0].folder / "recipe.yaml").is_file()  # a cell is a run like any other


def once_saved(folder: Path, act: Callable[[Path], None]) -> None:
    for _ in range(600):
        if list(folder.glob("*/state.pt")):
            break
        time.sleep(0.1)
    act(folder)


def interrupt(folder: Path) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def kill_those_who_train(folder: Path) -> None:
    for lock in folder.glob("*/.lock"):
        os.kill(int(lock.read_text()), signal.SIGKILL)


def test_a_cell_that_fails_says_why_and_the_others_go_on(tmp_path: Path) -> None:
    first, second = cells(tmp_path, 1)
    wrong = first._replace(recipe=replace(first.recipe, student=Network("stillhouse/tinny")))
    with crew(1) as workers:
        outcomes = workers.train([wrong, second], silent)
    failure = outcomes[wrong.folder]
    assert isinstance(failure, Failure) and "tinny" in failure.sentence
    assert read_failure(wrong.folder) == failure
    assert isinstance(outcomes[second.folder], dict) and read_failure(second.folder) is None


def test_a_killed_process_takes_no_other_cell_with_it(tmp_path: Path) -> None:
    """SIGKILL, as the system sends where memory ends: both cells are trained to their end."""
    both = cells(tmp_path, 60)
    killer = threading.Thread(target=once_saved, args=(tmp_path, kill_those_who_train), daemon=True)
    with crew(2) as workers:
        killer.start()
        outcomes = workers.train(both, silent)
    assert not killer.is_alive()
    assert all(isinstance(outcomes[cell.folder], dict) for cell in both), outcomes


def test_a_cell_that_is_killed_alone_too_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place of its training this cell kills its own process, whoever else is there."""
    good, _ = cells(tmp_path, 1)
    deadly = good._replace(folder=tmp_path / "deadly")
    monkeypatch.setattr(cell_room, "train_cell", die_if_deadly)
    with crew(2) as workers:
        outcomes = workers.train([deadly, good], silent)
    assert outcomes[deadly.folder] == Failure(DIED) == read_failure(deadly.folder)
    assert isinstance(outcomes[good.folder], dict)


def die_if_deadly(cell: Cell) -> Any:
    if cell.folder.name == "deadly":
        cell.folder.mkdir(parents=True, exist_ok=True)
        (cell.folder / "recipe.yaml").write_text("begun")
        os.kill(os.getpid(), signal.SIGKILL)
    return cell_room.train_cell(cell)


def test_there_is_a_process_for_each_core_or_gpu_that_may_be_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert 1 <= processes() <= max(os.cpu_count() or 1, torch.cuda.device_count())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert processes() == 3


@pytest.mark.parametrize(("given", "wanted"), [(None, ["0", "1", "0"]), ("5,7", ["5", "7", "5"])])
def test_each_process_has_a_gpu_of_its_own(
    monkeypatch: pytest.MonkeyPatch, given: str | None, wanted: list[str]
) -> None:
    import queue

    turns: queue.Queue[int] = queue.Queue()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(cell_room, "heed", lambda: None)
    monkeypatch.setattr(cell_room, "follow", lambda parent, busy: None)
    found = []
    for number in range(3):
        turns.put(number)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if given:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
        begin(turns)
        found.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert found == wanted


def test_a_killed_study_leaves_no_process_and_goes_on_at_once(tmp_path: Path) -> None:
    """SIGKILL to the parent alone: its workers save, end, and let their cells go."""
    script = "from test_jobs import keep_two_busy; keep_two_busy()"
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PLACE": str(tmp_path)},
    )
    once_saved(tmp_path, lambda folder: parent.kill())
    parent.wait()
    owners = [int(path.read_text()) for path in tmp_path.glob("*/.lock")]
    (cell,) = cells(tmp_path, 400, count=1)
    with crew(1) as workers:
        short = workers.train([cell._replace(until=1)], silent)[cell.folder]
    assert isinstance(short, dict) and 6 <= short["steps"] < 2400  # not refused, and not finished
    deadline = time.monotonic() + 30
    while any(map(alive, owners)):
        assert time.monotonic() < deadline, "a worker outlived its study"
        time.sleep(0.2)


def keep_two_busy() -> None:
    with crew(2) as workers:
        workers.train(cells(Path(os.environ["PLACE"]), 400), silent)


def alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{number}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"
