"""Jobs on a Ray cluster that runs on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from alone import Alone
from quick import kept_teacher, quick, student_bytes
from stillhouse.errors import UserError
from stillhouse.study.cluster import RayWorkers, ray_workers, train_remote_job, worker_environment
from stillhouse.study.jobs import Failure, Job
from stillhouse.study.plan import make_plan
from stillhouse.study.runner import run_study

pytest.importorskip("ray", reason="the extra ray is not installed")


@pytest.fixture(scope="module")
def workers() -> Iterator[RayWorkers]:
    kept_teacher()
    with ray_workers("local", cpus=1) as made:
        yield made


def test_a_study_on_a_cluster_equals_a_local_study(
    workers: RayWorkers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # and a relative folder means the same to both
    plan = make_plan(quick("train.epochs=1"), "kd,mse:weight=1e12", 1)
    messages: list[str] = []
    far = run_study(plan, Path("far"), workers, messages.append)
    near = run_study(plan, Path("near"), Alone(), messages.append)
    assert [arm.scores.keys() for arm in far.arms] == [arm.scores.keys() for arm in near.arms]
    for arm in ("none", "kd"):
        assert far.values(arm) == near.values(arm)
        assert student_bytes(Path("far") / arm / "0") == student_bytes(Path("near") / arm / "0")
    said, own = far.arms[2].failures[0], near.arms[2].failures[0]
    assert said.replace("in far/", "in near/") == own  # a message crosses machines, too
    assert sum("failed: " in line for line in messages) == 2


def test_a_lost_ray_task_is_a_failure(workers: RayWorkers, tmp_path: Path) -> None:
    dying = workers._ray.remote(num_cpus=1, max_retries=0)(die)
    lost = RayWorkers.__new__(RayWorkers)
    lost._ray, lost._task = workers._ray, dying
    job = Job(quick("method=none", "teacher=null"), tmp_path / "job")
    outcome = lost.train([job], lambda job, outcome: None)[job.folder]
    assert isinstance(outcome, Failure) and "Ray lost the task twice" in outcome.message


def die(job: Job, here: str, trust: bool) -> None:
    os._exit(1)


def test_remote_jobs_have_the_environment_of_the_sender(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STILLHOUSE_CACHE", "relative")
    monkeypatch.chdir(tmp_path)
    assert worker_environment(4.0) == {
        "OMP_NUM_THREADS": "4",
        "STILLHOUSE_CACHE": str(tmp_path / "relative"),
    }
    assert worker_environment(0.5)["OMP_NUM_THREADS"] == "1"
    wrong = Job(quick("student=stillhouse/tinny"), Path("job"))
    os.chdir(Path(__file__).parent)
    outcome = train_remote_job(wrong, str(tmp_path))
    assert isinstance(outcome, Failure) and Path.cwd() == tmp_path
    assert (tmp_path / "job.failure.json").is_file()


def test_an_unreachable_cluster_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def refuse(**options: object) -> None:
        raise ConnectionError("ray cluster at 10.0.0.1:6379 cannot be found\nmore")

    monkeypatch.setattr(ray, "init", refuse)
    message = r"--ray 10.0.0.1:6379: cannot connect to the cluster \(ray cluster"
    with pytest.raises(UserError, match=message), ray_workers("10.0.0.1:6379"):
        pass
