"""A network without its classifier: its last map or tokens, before they are pooled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from stillhouse.errors import UserError
from stillhouse.models.aliases import find_aliases, refusal
from stillhouse.models.places import LAST, declared_places
from stillhouse.models.recording import Call, Recording, path_of_call, record
from stillhouse.models.tap_path import TapPath

Layout = Literal["map", "channels_last", "tokens"]


class Trunk(NamedTuple):
    """The last place of a network that is not pooled."""

    path: str  # of a tap
    width: int  # channels
    layout: Layout  # (N, F, H, W), (N, H, W, F) or (N, T, F)


def cut_classifier(model: nn.Module, *example: Any) -> Trunk:
    """Find the last map or tokens of a network, and replace all layers behind with identities.

    It is the tensor that the classifier reads the mean or a token of, or, where several layers
    stand between, the last map. The network still runs to its end, over layers that do nothing.
    Raises UserError for a network without such a tensor.
    """
    recording = record(model, *example)
    trunk = _read_by_classifier(model, recording) or _last_map(model, recording, example)
    if trunk is None:
        raise UserError(
            refusal(model, LAST, *example)
            or f"{type(model).__name__} has no map and no tokens, which a label-wise head needs; "
            "take a convolutional network or a transformer"
        )
    cut_after(model, TapPath.parse(trunk.path).module, recording.calls)
    return trunk


def cut_after(model: nn.Module, path: str, calls: Sequence[Call]) -> None:
    """Replace all layers that run after the module at `path` with identities."""
    last = max(number for number, call in enumerate(calls) if call.path == path)
    for call in calls[last + 1 :]:
        parameter = next(call.module.parameters(recurse=False), None)
        if parameter is not None and not path.startswith(f"{call.path}."):
            _replace(model, call.path)


class ToTokens(nn.Module):
    """The output of a trunk as tokens: -> (N, T, F)."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout

    def forward(self, features: Tensor) -> Tensor:
        """A map, with its channels first or last, or tokens already."""
        if self.layout == "map":
            return features.flatten(2).mT
        return features.flatten(1, 2) if self.layout == "channels_last" else features


def _read_by_classifier(model: nn.Module, recording: Recording) -> Trunk | None:
    calls, declared = recording.calls, declared_places(model).classifier
    linear = [
        call.module
        for call in calls
        if isinstance(call.module, nn.Linear) and declared in (None, call.path)
    ]
    if not linear or calls[-1].shape[1:] != (linear[-1].out_features,):
        return None
    width = linear[-1].in_features
    for call in reversed(calls):
        layout = _layout(call.shape, width)
        if call.path and layout:
            return Trunk(path_of_call(calls, call), width, layout)
    return None


def _layout(shape: tuple[int, ...], width: int) -> Layout | None:
    if len(shape) == 4 and shape[1] == width and shape[2] * shape[3] > 1:
        return "map"
    if len(shape) == 4 and shape[3] == width and shape[1] * shape[2] > 1:
        return "channels_last"
    return "tokens" if len(shape) == 3 and shape[2] == width and shape[1] > 1 else None


def _last_map(model: nn.Module, recording: Recording, example: Sequence[Any]) -> Trunk | None:
    path = find_aliases(model, *example).get(LAST)
    shape = next((call.shape for call in reversed(recording.calls) if call.path == path), ())
    return Trunk(path, shape[1], "map") if path and len(shape) == 4 else None


def _replace(model: nn.Module, path: str) -> None:
    parent, _, child = path.rpartition(".")
    setattr(model.get_submodule(parent), child, nn.Identity())
