"""A run that is killed twice, without a word of warning, is as if it had not been."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import torch

from nursery import Child, Nursery
from quick import kept_teacher, metrics, run, student_bytes

WORDS = (
    "train.epochs=14",
    "data.transforms=[{kind: flip}]",
    "teacher.remember=false",
    "train.ema_decay=0.9",
    "engine.log_every=2",
    "engine.save_every=0.5",
    "engine.evaluate_every=5",
)


def start(nursery: Nursery, folder: Path, teacher: Path) -> Child:
    from quick import WORDS as COMMON

    given = (f"teacher.weights={teacher}", "teacher.train=null")
    words = ["run", "digits/raw", *COMMON, *WORDS, *given, "--resume", "--out", str(folder)]
    return nursery.start(["-m", "stillhouse", *words])


def step_of(state: Path) -> int:
    return int(torch.load(state, weights_only=True)["step"]) if state.exists() else 0


def kill_after_progress(process: Child, state: Path, delay: float) -> None:
    """Wait for a checkpoint that this process wrote, a little longer, and kill."""
    before, limit = step_of(state), time.monotonic() + 60
    while step_of(state) <= before:
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.01)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_killed_twice_and_resumed_is_bit_for_bit_undisturbed(
    tmp_path: Path, nursery: Nursery
) -> None:
    teacher = kept_teacher()
    made = random.Random(0)
    folder = tmp_path / "killed"
    steps = []
    for _ in range(2):
        process = start(nursery, folder, teacher)
        kill_after_progress(process, folder / "state.pt", made.uniform(0, 0.15))
        steps.append(step_of(folder / "state.pt"))
        assert not (folder / "student.safetensors").exists()
    assert 0 < steps[0] < steps[1] < 84
    given = (f"teacher.weights={teacher}", "teacher.train=null")
    resumed = run(folder, *WORDS, *given, resume=True)
    undisturbed = run(tmp_path / "undisturbed", *WORDS, *given)
    assert student_bytes(resumed) == student_bytes(undisturbed)
    assert metrics(folder) == metrics(undisturbed.folder)
    assert len(metrics(folder)) == 42 + 3
    assert resumed.student["test"] == undisturbed.student["test"]
    assert not list(folder.glob(".*.partial"))
