"""Teachers that are not trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from stillhouse.models.taps import Tapped
from stillhouse.models.weights import state_hash
from stillhouse.teachers.base import Fixed, Inputs
from stillhouse.types import Trace

B = TypeVar("B")


class Frozen(Fixed, Generic[B]):
    """A teacher that is never trained: eval mode, no gradient.

    It is not an nn.Module, so `.parameters()`, `.train()`, DDP and checkpoints of the student do
    not include it. `taps` are named as in `models.taps.Tapped`.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Inputs[B],
        taps: Iterable[str] = (),
        example: Sequence[Tensor] = (),
    ) -> None:
        self.network = Tapped(model.eval().requires_grad_(False), taps, example)
        self.inputs = inputs

    @torch.no_grad()
    def __call__(self, batch: B) -> Trace:
        """The outputs of the network for a batch."""
        self.network.eval()  # the caller may have set train mode
        trace: Trace = self.network(*self.inputs(batch))
        return trace

    def fingerprint(self) -> str:
        """The hash of all parameters and buffers."""
        return state_hash(self.network.model)


class NoTeacher(Fixed, Generic[B]):
    """The teacher of the control: its Trace has no output."""

    def __call__(self, batch: B) -> Trace:
        """A Trace whose output is None."""
        return Trace(None)

    def fingerprint(self) -> str:
        """The empty string."""
        return ""
