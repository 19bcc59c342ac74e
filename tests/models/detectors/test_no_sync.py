"""No step of training waits for the device: the host reads no result, and no shape is unknown."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from detectors import FAMILIES, small_detector, some_batch
from stillhouse import distributed
from stillhouse.distributed import combine
from stillhouse.engine.pupil import Pupil
from stillhouse.methods.build import make_method
from stillhouse.methods.setting import Setting
from stillhouse.models.taps import Tapped
from stillhouse.objectives import presets
from stillhouse.tasks.detection import Detection
from stillhouse.types import Clock, Trace

WAITING = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.repeat_interleave.Tensor,
    torch.ops.aten.bincount.default,
    torch.ops.aten._unique2.default,
    torch.ops.aten.equal.default,
}


class Watch(TorchDispatchMode):
    """Notes the operations that a host waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.count = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.count += 1
        masks = function is torch.ops.aten.index.Tensor and any(
            isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)
            for index in args[1]
        )
        if function in WAITING or masks:
            self.found.append(str(function))
        return function(*args, **(kwargs or {}))


def test_the_watch_sees_what_waits() -> None:
    with Watch() as watch:
        values = torch.ones(3)
        float(values.sum())
        values[values > 0]
        values.nonzero()
    assert len(watch.found) >= 3


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_does_not_wait(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # a total without a mass is refused on a CPU only, because the host must look
    monkeypatch.setattr(distributed, "_refuse_without_mass", lambda terms, mass: None)
    student, teacher = small_detector(family).double(), small_detector(family).double()
    batch, task = some_batch(2, 0, 3), Detection(5)
    example = torch.zeros(1, 3, 48, 64, dtype=torch.double)
    method = make_method((presets.tld(),), Setting(student, teacher, example)).double()
    pupil = Pupil(Tapped(student), method, task)
    with torch.no_grad():
        taught = {"": Trace(teacher(batch.images))}
    student(batch.images)  # lays out the priors, once for each size of images
    with Watch() as watch:
        terms = pupil(batch, taught, Clock(0, 10, 5))
        combine(terms).backward()
    assert watch.count > 100 and watch.found == []
