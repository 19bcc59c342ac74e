"""Teachers that are not trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from stillhouse.models.taps import Tapped
from stillhouse.models.weights import state_hash
from stillhouse.teachers.base import Fixed
from stillhouse.types import Trace

B = TypeVar("B")
Inputs = Callable[[B], tuple[Any, ...]]


class Frozen(Fixed, Generic[B]):
    """A teacher that is never trained: eval mode, no gradient.

    Not a module: `.parameters()`, `.train()`, DDP and checkpoints of the student do not include it.
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
        self.network.eval()  # it may have been put in train mode since
        trace: Trace = self.network(*self.inputs(batch))
        return trace

    def fingerprint(self) -> str:
        """The hash of parameters and buffers."""
        return state_hash(self.network.model)


class Absent(Fixed, Generic[B]):
    """No teacher, for the control: its Trace is empty."""

    def __call__(self, batch: B) -> Trace:
        """Nothing."""
        return Trace(None)

    def fingerprint(self) -> str:
        """The hash of nothing."""
        return ""
