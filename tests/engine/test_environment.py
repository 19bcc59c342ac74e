"""What is said of the place of a run."""

import json
import os
import platform
import random
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from stillhouse.engine import environment
from stillhouse.engine.devices import clear_rank_environment, launched_world_size
from stillhouse.engine.environment import describe_environment, seed_everything


@pytest.fixture(autouse=True)
def put_back():
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.backends.cudnn.benchmark = before[1]


def test_it_is_plain_and_true():
    said = describe_environment()
    assert json.loads(json.dumps(said)) == said
    assert said["python"] == ".".join(map(str, sys.version_info[:3]))
    # What is installed leaves out the build, which is said apart.
    assert said["packages"]["torch"] == torch.__version__.split("+")[0]
    assert said["cuda"] == torch.version.cuda
    assert said["packages"]["numpy"] == np.__version__
    assert said["threads"] == torch.get_num_threads() and said["cpus"] == os.cpu_count()
    assert len(said["devices"]) == torch.cuda.device_count()
    assert said["command"] == [Path(sys.argv[0]).name, *sys.argv[1:]]
    assert datetime.fromisoformat(said["date"]).utcoffset() == timedelta(0)


def test_a_package_that_is_not_there(monkeypatch):
    monkeypatch.setattr(environment, "PACKAGES", ("numpy", "no-such-package"))
    assert describe_environment()["packages"] == {"numpy": np.__version__, "no-such-package": None}


def git(*words: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    done = subprocess.run(["git", *identity, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_commit_of_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert environment.git_commit() is None
    git("init", "-q")
    assert environment.git_commit() is None  # no commit yet
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-q", "-m", "a")
    head = git("rev-parse", "HEAD")
    (tmp_path / "untracked").write_text("1")
    assert environment.git_commit() == head
    (tmp_path / "a").write_text("2")
    assert environment.git_commit() == head + "+"


def test_without_git_nothing_fails(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert describe_environment()["commit"] is None


def test_git_that_hangs(monkeypatch):
    def hang(*args: object, **options: object) -> None:
        raise subprocess.TimeoutExpired("git", 5)

    monkeypatch.setattr(subprocess, "run", hang)
    assert environment.git_commit() is None


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), torch.rand(()).item()


def test_seeding_reaches_all_three():
    seed_everything(5, deterministic=False)
    first = draw()
    seed_everything(5, deterministic=False)
    assert draw() == first
    seed_everything(6, deterministic=False)
    assert all(a != b for a, b in zip(draw(), first, strict=True))
    seed_everything(2**40, deterministic=False)  # beyond what NumPy takes
    with pytest.raises(ValueError, match="`seed` must be non-negative, got -1"):
        seed_everything(-1, deterministic=False)


def test_determinism_is_switched_on_and_off(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    torch.backends.cudnn.benchmark = True
    seed_everything(1, deterministic=True)
    assert torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    seed_everything(1, deterministic=False)
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_machine_is_called_by_its_accelerator_or_its_processor(monkeypatch):
    monkeypatch.setattr(environment, "accelerator_names", lambda: ["A Fast One"])
    assert environment.device_name() == "A Fast One"
    monkeypatch.setattr(environment, "accelerator_names", list)
    monkeypatch.setattr(environment, "processor_name", lambda: "A Slow One")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert environment.device_name() == "A Slow One, 1 thread"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert environment.device_name() == "A Slow One, 4 threads"


def test_a_processor_has_a_name_on_every_system(monkeypatch):
    assert environment.processor_name()
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "model name\t: Some CPU\nx: y\n")
    assert environment.processor_name() == "Some CPU"

    def refuse(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", refuse)
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert environment.processor_name() == platform.machine()


def test_ranks_are_forgotten(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert launched_world_size() == 2
    clear_rank_environment()
    assert launched_world_size() == 1 and "RANK" not in os.environ
