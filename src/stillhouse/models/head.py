"""A classifier that is one linear layer behind the mean of a map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from stillhouse.errors import UserError
from stillhouse.models.dry_run import undisturbed
from stillhouse.models.recording import Call, record
from stillhouse.models.stages import stages
from stillhouse.models.taps import Tapped
from stillhouse.types import Trace

TOLERANCE = 1e-4  # of the largest number that is compared


class Head(NamedTuple):
    """The classifier of a network: `linear(map.mean((2, 3)))` are its logits."""

    path: str
    linear: nn.Linear
    map: str  # the path of a tap (N, C, H, W)


def head(model: nn.Module, *example: Any) -> Head:
    """The linear layer that gives the logits, and the map of which it reads the mean.

    A forward tells, which leaves the network as it was. Of an example that is all one number, as
    one made for its shape, noise takes the place: it would look the same everywhere.
    """
    example = tuple(_varied(value) for value in example)
    calls = record(model, *example)
    last = _classifier(calls)
    found = last and _map(model, calls, last, example)
    if last is None or found is None:
        raise UserError(
            f"the classifier of {type(model).__name__} does not read the mean of a map, so "
            "class-map methods cannot be used with it; take a network that ends with a mean over "
            "its last map and one linear layer"
        )
    assert isinstance(last.module, nn.Linear)
    return Head(last.path, last.module, found)


def _varied(value: Any) -> Any:
    if (
        not isinstance(value, Tensor)
        or not value.is_floating_point()
        or value.amin() < value.amax()
    ):
        return value
    noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(0))
    return noise.to(value)


def _classifier(calls: Sequence[Call]) -> Call | None:
    """The last linear layer, if what it gives is what the network gives."""
    linear = [call for call in calls if isinstance(call.module, nn.Linear)]
    out = calls[-1].gave
    if not linear or out is None or linear[-1].gave is None:
        return None
    return linear[-1] if _near(linear[-1].gave.tensor, out.tensor) else None


def _map(model: nn.Module, calls: Sequence[Call], last: Call, example: Sequence[Any]) -> str | None:
    """The map of which the mean is what the classifier is given; `last` if it can be that.

    It is as large as `last`: a pool gives a map too, and an MLP may read that, of one place.
    """
    assert isinstance(last.module, nn.Linear) and last.given is not None
    width = last.module.in_features
    names = [c.path for c in reversed(calls) if len(c.shape) == 4 and c.shape[1] == width]
    if not names:
        return None
    taps = _taps(model, names, example)
    known = stages(model, *example).get("last")
    size = next((call.shape[2:] for call in calls if call.path == known), None)
    fit = [
        name
        for name, tap in taps.items()
        if (tap.shape[2:] == size if size else tap[0, 0].numel() > 1)
        and _near(tap.mean((2, 3)), last.given.tensor)
    ]
    # Parts of a module may give what the whole gives.
    return min(fit, key=lambda name: (name != known, name.count(".")), default=None)


def _taps(model: nn.Module, names: Sequence[str], example: Sequence[Any]) -> dict[str, Tensor]:
    tapped = Tapped(model, names, example)
    try:
        with undisturbed(model):
            trace: Trace = tapped(*example)
    finally:
        tapped.close()
    return dict(trace.taps)


def _near(one: Tensor, two: Tensor) -> bool:
    if one.shape != two.shape:
        return False
    return bool((one - two).abs().max() <= TOLERANCE * two.abs().max())
