"""Teachers that are not trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from stillhouse.models.taps import Tapped
from stillhouse.models.weights import state_hash
from stillhouse.teachers.base import Still
from stillhouse.types import Trace

B = TypeVar("B")
Inputs = Callable[[B], tuple[Tensor, ...]]


class Frozen(Still, Generic[B]):
    """A teacher that only speaks: eval mode, no gradient.

    Not a module: `.parameters()`, `.train()`, DDP and checkpoints of the student never meet it.
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
        """What the network says about a batch."""
        self.network.eval()  # whoever put it in train mode meanwhile
        trace: Trace = self.network(*self.inputs(batch))
        return trace

    def fingerprint(self) -> str:
        """The hash of parameters and buffers."""
        return state_hash(self.network.model)


class Absent(Still, Generic[B]):
    """No teacher, for the control: its Trace is empty."""

    def __call__(self, batch: B) -> Trace:
        """Nothing."""
        return Trace(None)

    def fingerprint(self) -> str:
        """The hash of nothing."""
        return ""
