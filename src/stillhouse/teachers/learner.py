"""A teacher with layers that are trained together with the student, for acclimation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from stillhouse.models.taps import Tapped
from stillhouse.models.weights import state_hash
from stillhouse.teachers.base import Inputs
from stillhouse.types import Trace

B = TypeVar("B")


class Learner(Generic[B]):
    """A teacher with some trainable layers; in eval mode, so BatchNorm statistics stay fixed.

    Its Trace has a gradient, for the loss that trains the teacher. The pupil detaches the same
    Trace for all other losses, so one forward pass is enough.
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
        self._initial = {name: p.detach().clone() for name, p in self.trainable.items()}

    @property
    def trained_network(self) -> Tapped:
        """The network, with its taps."""
        return self.network

    def __call__(self, batch: B) -> Trace:
        """The outputs of the network for a batch, with their gradient."""
        self.network.eval()
        trace: Trace = self.network(*self.inputs(batch))
        return trace

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        """The trainable parameters, in the group `teacher`."""
        return {"teacher": self.trainable.values()}

    def fingerprint(self) -> str:
        """The hash of all current parameters and buffers."""
        return state_hash(self.network.model)

    def state(self) -> Mapping[str, Tensor]:
        """The trainable parameters by name, without gradients; not copied."""
        return {name: parameter.detach() for name, parameter in self.trainable.items()}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Load trainable parameters that `state` returned."""
        for name, parameter in self.trainable.items():
            parameter.copy_(state[name])

    @contextmanager
    def initial_weights(self) -> Iterator[nn.Module]:
        """A context that gives the network with the weights from before training."""
        trained = {name: p.detach().clone() for name, p in self.trainable.items()}
        self.restore(self._initial)
        try:
            yield self.network.model
        finally:
            self.restore(trained)
