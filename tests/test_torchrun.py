"""The command under torchrun: two ranks make one run, fill one store, and write one page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from quick import WORDS, kept_teacher
from stillhouse.recipes import load
from stillhouse.runs.execute import evaluate_run
from stillhouse.study.index import read_run


def test_two_ranks_make_one_run_with_its_page(tmp_path: Path) -> None:
    teacher = kept_teacher()
    words = [
        *WORDS,
        "train.epochs=1",
        "control=true",
        f"teacher.weights={teacher}",
        "teacher.train=null",
        "teacher.remember=false",
        f"teacher.store={{path: {tmp_path / 'store'}}}",
    ]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launch, "-m", "stillhouse", "run", "digits/raw", *words, "--out", tmp_path / "run"]
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == f"report: {tmp_path / 'run' / 'report.html'}"
    _, result = read_run(tmp_path / "run")
    assert result.control is not None and result.teacher is not None
    assert result.student["steps"] == 200 // (32 * 2)  # each rank takes its half of the batches
    saved = evaluate_run(load.load(tmp_path / "run"), tmp_path / "run", "test", None).scores
    assert saved == pytest.approx(result.student["test"], rel=1e-6)  # whose statistics are saved
    assert len((tmp_path / "store" / "blocks.txt").read_text().splitlines()) >= 1
    sections = json.loads((tmp_path / "run" / "diagnosis.json").read_text())["sections"]
    assert "gradients" in {section["name"] for section in sections}
