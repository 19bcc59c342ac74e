"""The exponential moving average (EMA) of a network's weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from stillhouse.errors import UserError
from stillhouse.spec import require


class WeightEMA:
    """An exponential moving average of parameters and floating buffers; other buffers are copied.

    With `warmup` the decay is at most (1 + step) / (10 + step), so that the average of a short run
    does not include the initial weights.
    """

    def __init__(self, model: nn.Module, decay: float = 0.9999, *, warmup: bool = True) -> None:
        require(0 <= decay < 1, "decay", "in [0, 1)", decay)
        self.decay, self.warmup = decay, warmup
        # Buffers that are not saved are constants or scratch memory, not weights.
        saved = model.state_dict().keys()
        tensors = _tensors(model)
        self._values = {name: _copy_of(tensors[name]) for name in tensors if name in saved}

    def decay_at(self, step: int) -> float:
        """The decay of the update after step `step`, counted from 0."""
        return min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards the weights of the network after step `step`."""
        tensors = _tensors(model)
        averages, new = [], []
        for name, value in self._values.items():
            if value.is_floating_point():
                averages.append(value)
                new.append(tensors[name].detach().to(value.dtype))
            else:
                value.copy_(tensors[name])
        if averages:  # one kernel launch instead of one per tensor
            torch._foreach_lerp_(averages, new, 1 - self.decay_at(step))

    @contextlib.contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Within this context the network has the averaged weights, afterwards its own again."""
        tensors = _tensors(model)
        before = {name: tensors[name].detach().clone() for name in self._values}
        try:
            _copy(self._values, tensors)
            yield
        finally:
            _copy(before, tensors)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged tensors by name."""
        return dict(self._values)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load averaged tensors of the same names and shapes."""
        for name in self._values.keys() | state.keys():
            value, saved = self._values.get(name), state.get(name)
            if value is None or saved is None or value.shape != saved.shape:
                raise UserError(
                    f"the saved average does not match the network at {name!r}; resume with the "
                    "network that it was saved from"
                )
        _copy(state, self._values)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _copy_of(value: Tensor) -> Tensor:
    # An average in half precision would not change: an update of 1e-4 is below its resolution.
    value = value.detach()
    half = value.dtype in (torch.float16, torch.bfloat16)
    return value.to(torch.float32, copy=True) if half else value.clone()


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, value in source.items():
        target[name].copy_(value)
