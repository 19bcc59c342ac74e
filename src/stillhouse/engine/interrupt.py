"""Being asked to stop, and stopping between two steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.distributed as dist

from stillhouse.distributed import world_size

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """The user asked for an end; everything is saved and can be resumed."""


class Interrupt:
    """Inside, the first Ctrl-C or SIGTERM is only noted; the second ends the process as ever."""

    def __init__(self) -> None:
        self.asked = False
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
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def agreed(self, device: torch.device) -> bool:
        """Whether any rank was asked to stop, so that all stop after the same step."""
        if world_size() == 1:
            return self.asked
        flag = torch.tensor(float(self.asked), device=device)
        dist.all_reduce(flag)
        return bool(flag > 0)
