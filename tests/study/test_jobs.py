"""Jobs in parallel: results, failures, interruption, and continuation."""

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nursery import Nursery
from stillhouse.engine.interrupt import Stopped
from stillhouse.recipes import load
from stillhouse.recipes.schema import Network
from stillhouse.study import jobs as job_module
from stillhouse.study.jobs import (
    PROCESS_DIED,
    Failure,
    Job,
    default_processes,
    init_worker,
    process_workers,
    read_failure,
    train_job,
)

QUICK = ("method=none", "teacher=null", "engine.tensorboard=false", "engine.device=cpu")


def jobs(folder: Path, epochs: float, count: int = 2) -> list[Job]:
    recipe = load.load("digits/raw", [*QUICK, f"train.epochs={epochs}"])
    return [Job(replace(recipe, seed=seed), folder / f"none-{seed}") for seed in range(count)]


def silent(job: Job, outcome: Any) -> None:
    pass


def test_jobs_are_trained_once_and_a_failure_stops_no_other(tmp_path: Path) -> None:
    done: list[str] = []
    short = jobs(tmp_path, 2)
    student = Network("stillhouse/tinny")
    wrong = Job(replace(short[0].recipe, student=student), tmp_path / "wrong")
    with process_workers(2) as workers:
        first = workers.train([wrong, *short], lambda job, score: done.append(job.folder.name))
        again = workers.train(short, silent)  # only reads
    assert sorted(done) == ["none-0", "none-1", "wrong"]
    failure = first.pop(wrong.folder)
    assert isinstance(failure, Failure) and "tinny" in failure.message
    assert read_failure(wrong.folder) == failure
    assert first == again and set(first) == {job.folder for job in short}
    assert first[short[0].folder]["test"] != first[short[1].folder]["test"]
    assert all(read_failure(job.folder) is None for job in short)
    assert (short[0].folder / "recipe.yaml").is_file()  # a job is a run like any other


def test_jobs_stop_together(tmp_path: Path) -> None:
    done: list[str] = []
    long = jobs(tmp_path, 400)
    with pytest.raises(Stopped), process_workers(2) as workers:
        threading.Thread(target=once_saved, args=(tmp_path, interrupt), daemon=True).start()
        workers.train(long, lambda job, score: done.append(job.folder.name))
    assert done == [] and any((job.folder / "state.pt").exists() for job in long)


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


def test_a_killed_process_loses_no_job_but_one_that_kills_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL, which the system sends if memory runs out, from outside and then by a job."""
    both = jobs(tmp_path / "killed", 60)
    killer = threading.Thread(
        target=once_saved, args=(tmp_path / "killed", kill_those_who_train), daemon=True
    )
    good, _ = jobs(tmp_path, 1)
    deadly = good._replace(folder=tmp_path / "deadly")
    with process_workers(2) as workers:
        killer.start()
        trained = workers.train(both, silent)
        monkeypatch.setattr(job_module, "train_job", die_if_deadly)
        outcomes = workers.train([deadly, good], silent)
    assert not killer.is_alive()
    assert all(isinstance(trained[job.folder], dict) for job in both), trained
    assert outcomes[deadly.folder] == Failure(PROCESS_DIED) == read_failure(deadly.folder)
    assert isinstance(outcomes[good.folder], dict)


def die_if_deadly(job: Job, trust: bool) -> Any:
    if job.folder.name == "deadly":
        job.folder.mkdir(parents=True, exist_ok=True)
        (job.folder / "recipe.yaml").write_text("begun")
        os.kill(os.getpid(), signal.SIGKILL)
    return job_module.train_job(job, trust)


def test_one_process_per_gpu_or_core(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert 1 <= default_processes() <= max(os.cpu_count() or 1, torch.cuda.device_count())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert default_processes() == 3


@pytest.mark.parametrize(("given", "wanted"), [(None, ["0", "1", "0"]), ("5,7", ["5", "7", "5"])])
def test_each_process_has_its_own_gpu(
    monkeypatch: pytest.MonkeyPatch, given: str | None, wanted: list[str]
) -> None:
    import queue

    turns: queue.Queue[int] = queue.Queue()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(job_module, "defer_signals", lambda: None)
    parents: list[int] = []
    monkeypatch.setattr(job_module, "exit_with_parent", lambda one, busy: parents.append(one))
    result = []
    for number in range(3):
        turns.put(number)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if given:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
        init_worker(turns, 7)
        result.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert result == wanted and parents == [7, 7, 7]


def test_a_killed_study_leaves_no_process_and_can_continue(
    tmp_path: Path, nursery: Nursery
) -> None:
    """After SIGKILL to the parent its workers save, end and release their jobs."""
    code = "from test_jobs import keep_two_busy; keep_two_busy()"
    parent = nursery.start(["-c", code], env={"PLACE": str(tmp_path)})
    once_saved(tmp_path, lambda folder: parent.send_signal(signal.SIGKILL))
    assert parent.wait() == -signal.SIGKILL
    owners = [int(path.read_text()) for path in tmp_path.glob("*/.lock")]
    (job,) = jobs(tmp_path, 400, count=1)
    short = train_job(job._replace(until=1))
    assert isinstance(short, dict) and 6 <= short["steps"] < 2400  # not refused, and not finished
    deadline = time.monotonic() + 30
    while any(map(alive, owners)):
        assert time.monotonic() < deadline, "a worker outlived its study"
        time.sleep(0.2)


def keep_two_busy() -> None:
    with process_workers(2) as workers:
        workers.train(jobs(Path(os.environ["PLACE"]), 400), silent)


def alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{number}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"
