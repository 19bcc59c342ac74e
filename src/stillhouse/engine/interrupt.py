"""Stopping on SIGINT and SIGTERM, between two steps."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.distributed as dist

from stillhouse.distributed import world_size

GRACE = 60.0  # seconds
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """Training was interrupted; everything is saved and can be resumed."""


class _Process:
    """Signals of a process that runs many trainings."""

    deferred = False  # whether signals are only noted
    stop_requested = False


def defer_signals() -> None:
    """Only note signals from now on, also between trainings, and stop every later training.

    For a worker that waits for jobs: a signal must not end it while it holds the lock of the queue.
    """

    def note(number: int, frame: FrameType | None) -> None:
        _Process.stop_requested = True

    _Process.deferred = True
    for number in SIGNALS:
        signal.signal(number, note)


def exit_with_parent(parent: int, busy: threading.Lock | None = None) -> None:
    """Stop this process when its parent process ends, after what holds the lock has been saved.

    A parent that is killed cannot signal its workers, which would wait for jobs indefinitely.
    `parent` is what the parent itself gives as its id: one that has ended already has another.
    Without a lock, the process has a minute to save and end, as it may wait for a dead rank.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        if busy is None:
            time.sleep(GRACE)
            os._exit(1)
        with busy:
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Interrupt:
    """Within this context the first SIGINT or SIGTERM is only noted; the second has its effect."""

    def __init__(self) -> None:
        self.requested = _Process.stop_requested
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        # A worker gets the signal of the terminal and that of its parent.
        if self.requested and not _Process.deferred:
            raise KeyboardInterrupt
        self.requested = True
        _Process.stop_requested = _Process.deferred

    def requested_on_any_rank(self, device: torch.device) -> bool:
        """Whether any rank was interrupted, so that all ranks stop after the same step."""
        if world_size() == 1:
            return self.requested
        flag = torch.tensor(float(self.requested), device=device)
        dist.all_reduce(flag)
        return bool(flag > 0)
