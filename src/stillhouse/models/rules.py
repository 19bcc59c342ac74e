"""How the places of a network are told from the calls of its modules."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from torch import nn

from stillhouse.models.recording import Call, same

INPUT = "@input"  # after a path: what the module is given, instead of what it gives

_POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool2d, nn.MaxPool2d)
_NAMED = re.compile(r"(?:(.*)\.)?stage(\d+)")


def maps(calls: Iterable[Call], canvas: tuple[int, int] | None) -> list[Call]:
    """The calls that gave maps (N, C, H, W) of an image of that height and width."""
    return [call for call in calls if call.path and len(call.shape) == 4 and _is_map(call, canvas)]


def stage_paths(model: nn.Module, calls: Sequence[Call], found: Sequence[Call]) -> list[str]:
    """Where the stages are, from the shallow to the deep, `found` being the calls with maps."""
    places = _named(found)
    if len(places) < 2:
        places = [_outermost(group)[-1].path for group in _by_size(found, is_stage)]
    if len(places) < 2:
        places = _tokens(calls)
    if not places and _is_convolutional(model):
        places = [_outermost(group)[-1].path for group in _by_size(found, _is_no_pool)]
    return places


def deepest(found: Sequence[Call], places: Sequence[str]) -> str | None:
    """The shallowest name, and of those the last to finish, at the last stage's resolution."""
    final = [call for call in found if places and call.path == places[-1]]
    learned = [call for call in found if next(call.module.parameters(), None) is not None]
    alike = [call.path for call in learned if final and _size(call) == _size(final[-1])]
    return min(reversed(alike), key=lambda path: path.count("."), default=None)


def penultimate(calls: Sequence[Call]) -> str | None:
    """Where the vector is that the last linear layer reads, if that layer gives the output."""
    linear = [call for call in calls if isinstance(call.module, nn.Linear)]
    if not linear or not calls[-1].shape or calls[-1].shape != linear[-1].shape:
        return None
    vector = linear[-1].given
    if vector is None or vector.tensor.ndim != 2:
        return None
    # Dropout gives its input unchanged here, and something else while the network learns.
    givers = [
        call.path
        for call in calls
        if same(call.gave, vector) and not isinstance(call.module, nn.Dropout)
    ]
    if givers:
        return givers[-1]
    readers = [call.path for call in calls if same(call.given, vector)]
    return min(readers, key=lambda path: path.count(".")) + INPUT


def is_stage(module: nn.Module) -> bool:
    """Whether it has two linear layers or more, as neither a stem nor a pool has."""
    return sum(isinstance(part, nn.Conv2d | nn.Linear) for part in module.modules()) > 1


def _is_map(call: Call, canvas: tuple[int, int] | None) -> bool:
    # A map with its channels last shows (W, C) where a resolution is expected; its aspect tells.
    if canvas is None:
        return True
    (height, width), (h, w) = canvas, _size(call)
    return h <= height and w <= width and abs(h * width - w * height) <= height + width


def _named(found: Iterable[Call]) -> list[str]:
    """The sisters `stage1`, `stage2`, .. of a network that calls its stages so itself."""
    ran = {call.path for call in found}
    parents = [match[1] or "" for path in ran if (match := _NAMED.fullmatch(path))]
    places: list[str] = []
    if parents:
        parent = min(parents, key=lambda path: (path.count("."), len(path), path))
        prefix = f"{parent}." if parent else ""
        while (path := f"{prefix}stage{len(places) + 1}") in ran:
            places.append(path)
    return places


def _by_size(found: Iterable[Call], counts: Callable[[nn.Module], bool]) -> list[list[Call]]:
    groups: dict[tuple[int, ...], list[Call]] = {}
    for call in found:
        if counts(call.module):
            groups.setdefault(_size(call), []).append(call)
    return list(groups.values())


def _size(call: Call) -> tuple[int, ...]:
    return call.shape[-2:]


def _is_no_pool(module: nn.Module) -> bool:
    return not isinstance(module, _POOLS)


def _is_convolutional(model: nn.Module) -> bool:
    parts = list(model.modules())
    linear = sum(isinstance(part, nn.Linear) for part in parts)
    return sum(isinstance(part, nn.Conv2d) for part in parts) > linear


def _outermost(calls: list[Call]) -> list[Call]:
    paths = [call.path for call in calls]
    return [c for c in calls if not any(c.path.startswith(f"{path}.") for path in paths)]


def _tokens(calls: Iterable[Call]) -> list[str]:
    """The largest family of sisters of one class that give tokens: the blocks of a transformer."""
    families = [
        (call.path.rpartition(".")[0], type(call.module), call.path)
        for call in calls
        if len(call.shape) == 3 and is_stage(call.module)
    ]
    common = Counter((parent, kind) for parent, kind, _ in families).most_common(1)
    if not common or common[0][1] < 2:
        return []
    return [path for parent, kind, path in families if (parent, kind) == common[0][0]]
