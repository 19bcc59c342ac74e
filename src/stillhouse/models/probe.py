"""Learning shapes by looking once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stillhouse.models.dry_run import undisturbed
from stillhouse.models.taps import Tapped


@dataclass(frozen=True, slots=True)
class Probe:
    """The shapes of the tensors that the taps of both networks give, batch axis first."""

    student: Mapping[str, torch.Size]
    teacher: Mapping[str, torch.Size]


def shapes(model: nn.Module, taps: Iterable[str], *inputs: Tensor) -> Mapping[str, torch.Size]:
    """The shape of each tap, path or alias, in one forward that leaves the network as it was."""
    tapped = Tapped(model, taps, example=inputs)
    try:
        with undisturbed(model):
            trace = tapped(*inputs)
    finally:
        tapped.close()
    return {name: tap.shape for name, tap in trace.taps.items()}
