"""Being asked to stop, and stopping between two steps."""

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

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """The user asked for an end; everything is saved and can be resumed."""


class _Standing:
    """A request that outlasts the training it came in, where a process has many to do."""

    heeded = False
    asked = False


def heed() -> None:
    """From now on only note requests, between trainings too, for every training to come.

    A process that waits for work must not die of one: it may hold the lock of the queue.
    """

    def note(number: int, frame: FrameType | None) -> None:
        _Standing.asked = True

    _Standing.heeded = True
    for number in SIGNALS:
        signal.signal(number, note)


def follow(parent: int, busy: threading.Lock) -> None:
    """End this process when its parent has died: what is under way saves first.

    A parent that is killed cannot ask, and its workers would wait for work for ever.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        with busy:
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Interrupt:
    """Inside, the first Ctrl-C or SIGTERM is only noted; the second ends the process as ever."""

    def __init__(self) -> None:
        self.asked = _Standing.asked
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked and not _Standing.heeded:  # of many, the parent asks once more
            raise KeyboardInterrupt
        self.asked = True
        _Standing.asked = _Standing.heeded

    def agreed(self, device: torch.device) -> bool:
        """Whether any rank was asked to stop, so that all stop after the same step."""
        if world_size() == 1:
            return self.asked
        flag = torch.tensor(float(self.asked), device=device)
        dist.all_reduce(flag)
        return bool(flag > 0)
