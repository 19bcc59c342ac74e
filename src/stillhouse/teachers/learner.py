"""A teacher some of whose layers are trained together with the student: acclimation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from stillhouse.models.taps import Tapped
from stillhouse.models.weights import state_hash
from stillhouse.types import Trace

B = TypeVar("B")
Inputs = Callable[[B], tuple[Any, ...]]


class Learner(Generic[B]):
    """A teacher some of whose layers are trained; eval mode keeps its statistics fixed.

    Its Trace has a gradient, for the one loss that moves the teacher. The pupil detaches it for all
    others; one forward serves both.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Inputs[B],
        layers: Iterable[str],
        taps: Iterable[str] | Mapping[str, str] = (),
        example: Sequence[Tensor] = (),
    ) -> None:
        model.eval().requires_grad_(False)
        self.network = Tapped(model, taps, example)
        self.inputs = inputs
        self.trainable = {
            f"{layer}.{name}": parameter
            for layer in layers
            for name, parameter in model.get_submodule(layer).named_parameters()
        }
        for parameter in self.trainable.values():
            parameter.requires_grad_(True)
        self._before = {name: p.detach().clone() for name, p in self.trainable.items()}

    def __call__(self, batch: B) -> Trace:
        """The outputs of the network for a batch, with their gradient."""
        self.network.eval()
        trace: Trace = self.network(*self.inputs(batch))
        return trace

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        """The layers that move."""
        return {"teacher": self.trainable.values()}

    def fingerprint(self) -> str:
        """The hash of parameters and buffers as they are now."""
        return state_hash(self.network.model)

    def state(self) -> Mapping[str, Tensor]:
        """The layers that move, as they are now."""
        return {name: parameter.detach() for name, parameter in self.trainable.items()}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from where `state` was taken."""
        for name, parameter in self.trainable.items():
            parameter.copy_(state[name])

    @contextmanager
    def original(self) -> Iterator[nn.Module]:
        """Inside, the network is as it was before it learned anything."""
        now = {name: p.detach().clone() for name, p in self.trainable.items()}
        self.restore(self._before)
        try:
            yield self.network.model
        finally:
            self.restore(now)
