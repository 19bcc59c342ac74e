"""Where training happens. The only file that knows Accelerate, which prepares the pupil alone."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import nn

from stillhouse.engine.pupil import Pupil
from stillhouse.errors import UserError

Precision = Literal["float32", "bfloat16", "float16"]
Where = Literal["auto", "cpu", "cuda", "mps"]


class Hardware:
    """The device of this process, its ranks under torchrun, and the precision of a forward.

    Accelerate is asked for the device and the distributed wrapper, and for nothing else: its
    loaders, schedulers, gathers and saved states all do more than we want.
    """

    def __init__(self, where: Where = "auto", precision: Precision = "float32") -> None:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState

        available(where)
        AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
        self._accelerator = Accelerator(cpu=where == "cpu", mixed_precision="no")
        self.device: torch.device = self._accelerator.device
        self.precision = precision
        half = precision == "float16"
        if half and self.device.type == "cpu":
            raise UserError(
                "precision float16 needs a GPU; on a CPU say engine.precision=bfloat16 or float32"
            )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=half)

    def prepare(self, pupil: Pupil[Any]) -> nn.Module:
        """The pupil on the device, in a distributed wrapper where there are ranks."""
        from accelerate import DistributedDataParallelKwargs

        # looking for parameters without a gradient costs a walk through the graph each step
        self._accelerator.ddp_handler = DistributedDataParallelKwargs(
            find_unused_parameters=pupil.method.unused_parameters
        )
        prepared: nn.Module = self._accelerator.prepare_model(pupil)
        return prepared

    def autocast(self) -> torch.autocast:
        """The context of a forward; losses leave it by themselves."""
        lower = self.precision != "float32"
        dtype = getattr(torch, self.precision) if lower else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=lower)

    def quiet(self, pupil: nn.Module, more: bool) -> AbstractContextManager[Any]:
        """No gradient exchange while more micro-batches are to come."""
        exchange = getattr(pupil, "no_sync", None)
        return exchange() if more and callable(exchange) else nullcontext()


def available(where: Where) -> None:
    """Refuse a device that this machine does not have."""
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not found.get(where, True):
        raise UserError(f"engine.device={where}, but this machine has none; say cpu or auto")


def launched_ranks() -> int:
    """How many processes torchrun started, this one among them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def forget_ranks() -> None:
    """Go on as one process, whatever torchrun said when it started this one."""
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        os.environ.pop(name, None)
