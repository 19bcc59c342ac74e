"""The moving average of a network's weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from stillhouse.errors import UserError
from stillhouse.spec import require


class Average:
    """An exponential moving average of parameters and floating buffers; other buffers are copied.

    With `warmup` the decay grows as (1 + step) / (10 + step) until it reaches its value, so that
    a short run is not averaged with the weights it started from.
    """

    def __init__(self, model: nn.Module, decay: float = 0.9999, *, warmup: bool = True) -> None:
        require(0 <= decay < 1, "decay", "in [0, 1)", decay)
        self.decay, self.warmup = decay, warmup
        # Buffers that a network does not save are constants or scratch; they are not its weights.
        saved = model.state_dict().keys()
        live = _tensors(model)
        self._values = {name: _own(live[name]) for name in live if name in saved}

    def decay_at(self, step: int) -> float:
        """The decay of the update after step `step`, counted from 0."""
        return min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards the network as it stands after step `step`."""
        live = _tensors(model)
        kept, new = [], []
        for name, value in self._values.items():
            if value.is_floating_point():
                kept.append(value)
                new.append(live[name].detach().to(value.dtype))
            else:
                value.copy_(live[name])
        if kept:  # one launch for all of them, where there are hundreds
            torch._foreach_lerp_(kept, new, 1 - self.decay_at(step))

    @contextlib.contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """The network with the averaged weights; its own come back, bit for bit."""
        live = _tensors(model)
        before = {name: live[name].detach().clone() for name in self._values}
        try:
            _copy(self._values, live)
            yield
        finally:
            _copy(before, live)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged tensors by name."""
        return dict(self._values)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over averaged tensors of the same names and shapes."""
        for name in self._values.keys() | state.keys():
            here, there = self._values.get(name), state.get(name)
            if here is None or there is None or here.shape != there.shape:
                raise UserError(
                    f"the saved average does not fit the network at {name!r}; resume with the "
                    "network that it was saved from"
                )
        _copy(state, self._values)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _own(value: Tensor) -> Tensor:
    # An average in half precision would stop moving: a change of 1e-4 is below its last digit.
    value = value.detach()
    half = value.dtype in (torch.float16, torch.bfloat16)
    return value.to(torch.float32, copy=True) if half else value.clone()


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, value in source.items():
        target[name].copy_(value)
