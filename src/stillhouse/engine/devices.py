"""The device and precision of training. The only file that imports Accelerate."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import nn

from stillhouse.distributed import sync_equal_buffers
from stillhouse.engine.pupil import Pupil
from stillhouse.errors import UserError

Precision = Literal["float32", "bfloat16", "float16"]
DeviceName = Literal["auto", "cpu", "cuda", "mps"]


class Hardware:
    """The device of this process, its ranks under torchrun, and the precision of the forward.

    Accelerate provides the device and the DDP wrapper, but not loaders, schedulers, gathering or
    checkpoints, which do more than is needed here.
    """

    def __init__(self, device: DeviceName = "auto", precision: Precision = "float32") -> None:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState

        check_device(device)
        AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
        self._accelerator = Accelerator(cpu=device == "cpu", mixed_precision="no")
        self.device: torch.device = self._accelerator.device
        self.precision = precision
        half = precision == "float16"
        if half and self.device.type == "cpu":
            raise UserError(
                "precision float16 needs a GPU; on a CPU set engine.precision=bfloat16 or float32"
            )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=half)

    def prepare(self, pupil: Pupil[Any]) -> nn.Module:
        """The pupil on the device, wrapped in DDP where there are several ranks."""
        from accelerate import DistributedDataParallelKwargs

        # finding parameters without a gradient traverses the graph at each step
        self._accelerator.ddp_handler = DistributedDataParallelKwargs(
            find_unused_parameters=pupil.method.unused_parameters
        )
        sync_equal_buffers(pupil.to(self.device))
        prepared: nn.Module = self._accelerator.prepare_model(pupil)
        return prepared

    def autocast(self) -> torch.autocast:
        """The autocast context of the forward; losses disable it themselves."""
        enabled = self.precision != "float32"
        dtype = getattr(torch, self.precision) if enabled else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=enabled)

    def no_sync(self, pupil: nn.Module, accumulating: bool) -> AbstractContextManager[Any]:
        """Skip the gradient all-reduce of DDP for all micro-batches but the last."""
        no_sync = getattr(pupil, "no_sync", None)
        return no_sync() if accumulating and callable(no_sync) else nullcontext()


def check_device(device: DeviceName) -> None:
    """Raise a UserError for a device that this machine does not have."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(device, True):
        raise UserError(f"engine.device={device}, but this machine has none; set cpu or auto")


def available_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_excess_workers(workers: int) -> str:
    """A sentence on more processes that load images than cores; empty for as many or fewer."""
    cores = available_cores()
    if workers <= cores:
        return ""
    return (
        f"engine.workers is {workers}, but this process may use {cores} "
        f"core{'' if cores == 1 else 's'}, so that more workers do not load faster; set "
        f"engine.workers={cores}"
    )


def launched_world_size() -> int:
    """The number of processes that torchrun started, including this one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def clear_rank_environment() -> None:
    """Continue as a single process, without the environment variables of torchrun."""
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        os.environ.pop(name, None)
