"""Checks for NaN and infinite numbers in what networks answer, and in their weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stillhouse.distributed import gather_objects
from stillhouse.errors import UserError

ADVICE = "lower the learning rate or the weight of the loss, clip gradients, or train in float32"


def has_finite_numbers(out: Any) -> bool:
    """Whether all numbers of an output are finite; this waits for the device."""
    # one pass without a copy, as an output may be as large as the images; NaN becomes the maximum
    ends = [torch.stack(part.detach().aminmax()) for part in floats_in(out)]
    return all(bool(pair.isfinite().all()) for pair in ends)


def floats_in(value: Any) -> Iterator[Tensor]:
    """The floating-point tensors in an output that are not empty."""
    if isinstance(value, Tensor):
        if value.is_floating_point() and value.numel():
            yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from floats_in(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from floats_in(inner)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from floats_in(getattr(value, field.name))


def check_outputs(finite: bool, network: str) -> None:
    """Raise UserError, on all ranks, unless the outputs on each of them were finite."""
    if not all(gather_objects(finite)):
        raise UserError(
            f"the {network} gives NaN or infinite numbers in evaluation; check its weights and the "
            f"mean and std of its images, or where it was trained {ADVICE}"
        )


def check_weights(network: nn.Module, name: str) -> None:
    """Raise UserError for weights that are not finite; this waits for the device once."""
    floats = {n: t for n, t in network.state_dict().items() if t.is_floating_point() and t.numel()}
    if not floats:
        return
    finite = torch.stack([torch.stack(t.aminmax()).isfinite().all() for t in floats.values()])
    broken = [name for name, good in zip(floats, finite.tolist(), strict=True) if not good]
    if broken:
        raise UserError(
            f"{len(broken)} of {len(floats)} weights of the {name} are NaN or infinite after "
            f"training, first {broken[0]}; {ADVICE}"
        )
