"""Several processes: a state belongs to their number, and none outlives its parent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from engine.parts import make_run
from stillhouse import distributed
from stillhouse.engine import state
from stillhouse.errors import UserError


def test_a_state_is_resumed_by_as_many_processes_as_wrote_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_run(tmp_path)
    made.start = 3
    state.save_run(made)
    again = make_run(tmp_path)
    monkeypatch.setattr(state, "world_size", lambda: 2)
    with pytest.raises(UserError) as caught:
        state.resume_run(again)
    sentence = f"{tmp_path / 'state.pt'} was written by 1 process, but this run has 2, and"
    assert str(caught.value).startswith(sentence) and again.start == 0
    monkeypatch.undo()
    assert state.resume_run(again) and again.start == 3


def test_a_student_is_evaluated_with_the_buffers_that_are_saved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first rank's, which is played by a broadcast that writes ones."""
    made = make_run()
    made.student.add_module("norm", nn.BatchNorm1d(2))
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "broadcast", lambda buffer, source: buffer.fill_(1))
    with state.averaged_weights(made):
        assert made.student.norm.running_mean.tolist() == [1.0, 1.0]


def test_a_process_ends_whose_parent_ended_before_it_started() -> None:
    code = (
        "import threading, time\n"
        "from stillhouse.engine.interrupt import defer_signals, exit_with_parent\n"
        "defer_signals()\n"
        "exit_with_parent(2**30, threading.Lock())\n"
        "time.sleep(100)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], timeout=90, check=False)
    assert ended.returncode == 1
