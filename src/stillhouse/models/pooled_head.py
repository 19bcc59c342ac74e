"""A classifier that is one linear layer behind the mean of a map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from stillhouse.errors import UserError
from stillhouse.models.aliases import find_aliases
from stillhouse.models.dry_run import undisturbed
from stillhouse.models.places import LAST, declared_places
from stillhouse.models.recording import Call, Recording, path_of_call, record
from stillhouse.models.tap_path import TapPath
from stillhouse.models.taps import Tapped
from stillhouse.types import Trace

TOLERANCE = 1e-4  # of the largest number that is compared


class PooledHead(NamedTuple):
    """The classifier of a network: its logits are `linear(map.mean((2, 3)))`."""

    path: str
    linear: nn.Linear
    map: str  # the path of a tap (N, C, H, W)


def find_pooled_head(model: nn.Module, *example: Any) -> PooledHead:
    """The linear layer that gives the logits, and the map of which it reads the mean.

    They are found in a dry run, which leaves the network as it was. Noise takes the place of an
    example that is all one number, which would look the same everywhere. Raises UserError for a
    network with another kind of classifier.
    """
    example = tuple(_varied(value) for value in example)
    recording = record(model, *example)
    last = _classifier(recording, declared_places(model).classifier)
    map_path = last and _map(model, recording, last, example)
    if last is None or map_path is None:
        raise UserError(
            f"the classifier of {type(model).__name__} does not read the mean of a map, so "
            "class-map methods cannot be used with it; take a network that ends with a mean over "
            "its last map and one linear layer"
        )
    assert isinstance(last.module, nn.Linear)
    return PooledHead(last.path, last.module, map_path)


def _varied(value: Any) -> Any:
    if (
        not isinstance(value, Tensor)
        or not value.is_floating_point()
        or value.amin() < value.amax()
    ):
        return value
    noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(0))
    return noise.to(value)


def _classifier(recording: Recording, declared: str | None) -> Call | None:
    """The last linear layer, or the declared one, if its output is that of the network."""
    linear = [
        call
        for call in recording.calls
        if isinstance(call.module, nn.Linear) and declared in (None, call.path)
    ]
    out = recording.calls[-1].output
    if not linear or out is None or linear[-1].output is None:
        return None
    return linear[-1] if _is_near(linear[-1].output.tensor, out.tensor) else None


def _map(model: nn.Module, recording: Recording, last: Call, example: Sequence[Any]) -> str | None:
    """The map of which the mean is what the classifier is given; `last` if it can be that.

    It is as large as `last`: a pool gives a map too, and an MLP may read that, of one pixel.
    """
    assert isinstance(last.module, nn.Linear) and last.input is not None
    width, calls = last.module.in_features, recording.calls
    names = [
        path_of_call(calls, c) for c in reversed(calls) if len(c.shape) == 4 and c.shape[1] == width
    ]
    if not names:
        return None
    taps = _taps(model, names, example)
    known = find_aliases(model, *example).get(LAST)
    size = next((call.shape[2:] for call in calls if call.path == known), None)
    fit = [
        name
        for name, tap in taps.items()
        if (tap.shape[2:] == size if size else tap[0, 0].numel() > 1)
        and _is_near(tap.mean((2, 3)), last.input.tensor)
    ]
    # Parts of a module may return what the whole returns.
    depths = {name: TapPath.parse(name).module.count(".") for name in fit}
    return min(fit, key=lambda name: (name != known, depths[name]), default=None)


def _taps(model: nn.Module, names: Sequence[str], example: Sequence[Any]) -> dict[str, Tensor]:
    tapped = Tapped(model, names, example)
    try:
        with undisturbed(model):
            trace: Trace = tapped(*example)
    finally:
        tapped.close()
    return dict(trace.taps)


def _is_near(one: Tensor, two: Tensor) -> bool:
    if one.shape != two.shape:
        return False
    return bool((one - two).abs().max() <= TOLERANCE * two.abs().max())
