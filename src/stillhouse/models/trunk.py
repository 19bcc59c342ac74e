"""A network without its classifier: what it sees where, before that becomes one vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from stillhouse.errors import UserError
from stillhouse.models.recording import Call, record
from stillhouse.models.stages import stages

Layout = Literal["map", "channels_last", "tokens"]


class Trunk(NamedTuple):
    """The last place of a network that still shows where things are."""

    path: str  # of a tap
    width: int  # channels
    layout: Layout  # (N, F, H, W), (N, H, W, F) or (N, T, F)


def cut(model: nn.Module, *example: Any) -> Trunk:
    """The last map or tokens of a network, from which all layers behind are taken off.

    It is the tensor that the classifier reads the mean or a token of, or, where several layers
    stand between, the last map. The network still runs to its end, over layers that do nothing.
    """
    calls = record(model, *example)
    found = _read_by_classifier(calls) or _last(model, calls, example)
    if found is None:
        raise UserError(
            f"{type(model).__name__} shows no map and no tokens, which a label-wise head reads; "
            "take a convolutional network or a transformer"
        )
    last = max(number for number, call in enumerate(calls) if call.path == found.path)
    for call in calls[last + 1 :]:
        own = next(call.module.parameters(recurse=False), None)
        if own is not None and not found.path.startswith(f"{call.path}."):
            _replace(model, call.path)
    return found


class Tokens(nn.Module):
    """What a trunk shows, place by place: -> (N, T, F)."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout

    def forward(self, seen: Tensor) -> Tensor:
        """A map, with its channels first or last, or tokens already."""
        if self.layout == "map":
            return seen.flatten(2).mT
        return seen.flatten(1, 2) if self.layout == "channels_last" else seen


def _read_by_classifier(calls: Sequence[Call]) -> Trunk | None:
    linear = [call.module for call in calls if isinstance(call.module, nn.Linear)]
    if not linear or calls[-1].shape[1:] != (linear[-1].out_features,):
        return None
    width = linear[-1].in_features
    for call in reversed(calls):
        layout = _layout(call.shape, width)
        if call.path and layout:
            return Trunk(call.path, width, layout)
    return None


def _layout(shape: tuple[int, ...], width: int) -> Layout | None:
    if len(shape) == 4 and shape[1] == width and shape[2] * shape[3] > 1:
        return "map"
    if len(shape) == 4 and shape[3] == width and shape[1] * shape[2] > 1:
        return "channels_last"
    return "tokens" if len(shape) == 3 and shape[2] == width and shape[1] > 1 else None


def _last(model: nn.Module, calls: Sequence[Call], example: Sequence[Any]) -> Trunk | None:
    path = stages(model, *example).get("last")
    shape = next((call.shape for call in reversed(calls) if call.path == path), ())
    return Trunk(path, shape[1], "map") if path and len(shape) == 4 else None


def _replace(model: nn.Module, path: str) -> None:
    parent, _, child = path.rpartition(".")
    setattr(model.get_submodule(parent), child, nn.Identity())
