"""The command under torchrun: two ranks make one run, which outlives a killed launcher."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from quick import WORDS, kept_teacher, metrics, student_bytes
from stillhouse.recipes import load
from stillhouse.runs.execute import evaluate_run
from stillhouse.study.index import read_run

LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "stillhouse")


def launch(folder: Path, *words: str) -> subprocess.Popen[str]:
    teacher = (f"teacher.weights={kept_teacher()}", "teacher.train=null")
    command = ["run", "digits/raw", *WORDS, *teacher, *words, "--out", str(folder)]
    return subprocess.Popen(
        [sys.executable, *LAUNCHER, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


EPOCHS = 12
Undisturbed = tuple[Path, list[str], str]  # the folder of a run, its words and its output


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    root = tmp_path_factory.mktemp("torchrun")
    words = [
        f"train.epochs={EPOCHS}",
        "engine.log_every=2",
        "engine.save_every=0.2",
        "control=true",
        "teacher.remember=false",
        f"teacher.store={{path: {root / 'store'}}}",
    ]
    run = launch(root / "run", *words)
    out, complaints = run.communicate(timeout=240)
    assert run.returncode == 0, complaints[-3000:]
    return root / "run", words, out


def test_two_ranks_make_one_run_with_its_page(undisturbed: Undisturbed) -> None:
    folder, _, out = undisturbed
    assert out.splitlines()[-1] == f"report: {folder / 'report.html'}"
    _, result = read_run(folder)
    assert result.control is not None and result.teacher is not None
    # each rank takes its half of the batches
    assert result.student["steps"] == EPOCHS * (200 // (32 * 2))
    saved = evaluate_run(load.load(folder), folder, "test", None).scores
    assert saved == pytest.approx(result.student["test"], rel=1e-6)  # whose statistics are saved
    assert len((folder.parent / "store" / "blocks.txt").read_text().splitlines()) >= 1
    sections = json.loads((folder / "diagnosis.json").read_text())["sections"]
    assert "gradients" in {section["name"] for section in sections}


def ranks_of(launcher: subprocess.Popen[str]) -> list[int]:
    """The processes that a launcher has started."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children")
    return [int(word) for word in children.read_text().split()]


def wait_for(happened: Callable[[], bool], seconds: float) -> None:
    limit = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < limit
        time.sleep(0.02)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs the processes of Linux")
def test_ranks_end_with_a_killed_launcher_and_the_run_resumes_as_it_was(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    whole, words, _ = undisturbed
    folder = tmp_path / "killed"
    first = launch(folder, *words, "--no-explain")
    wait_for((folder / "state.pt").exists, 120)
    ranks = ranks_of(first)
    first.kill()
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    assert len(ranks) == 2
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in ranks), 30)
    assert not (folder / "student.safetensors").exists()
    resumed = launch(folder, *words, "--no-explain", "--resume")
    _, complaints = resumed.communicate(timeout=240)
    assert resumed.returncode == 0, complaints[-3000:]
    assert metrics(folder) == metrics(whole)
    assert student_bytes(folder) == student_bytes(whole)
