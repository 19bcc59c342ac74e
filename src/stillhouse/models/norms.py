"""The BatchNorms that say how a map before its ReLU is distributed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import nn

from stillhouse.errors import UserError
from stillhouse.models.recording import Call, record, same
from stillhouse.models.stages import INPUT, PRE, paths


def norms(model: nn.Module, taps: Iterable[str], *example: Any) -> dict[str, nn.BatchNorm2d]:
    """For each tap before a ReLU, as `stage1@pre`, the BatchNorm whose gain and bias describe it.

    It is the tap itself or what gave it. Of a sum of branches it is the last to run of those that
    lie shallowest in the block, because that of a shortcut lies deeper. With its gain g and bias b
    channel c of the tap is taken for N(b_c, g_c^2) (Heo et al., 2019).
    """
    taps = list(taps)
    bases = [tap.removesuffix(PRE) for tap in taps]
    where = paths(model, [*taps, *bases], *example)
    calls = record(model, *example)
    return {
        tap: _norm(model, calls, tap, where[tap], where[base])
        for tap, base in zip(taps, bases, strict=True)
    }


def _norm(
    model: nn.Module, calls: Sequence[Call], tap: str, path: str, stage: str
) -> nn.BatchNorm2d:
    place = path.removesuffix(INPUT)
    stage = place.rpartition(".")[0] if stage == path else stage
    before = _until(calls, place)
    for found in (_around(model, place), _giver(before), _in_block(calls, before, place, stage)):
        if found is not None:
            return found
    raise UserError(
        f"{type(model).__name__} has no BatchNorm with gain and bias before the ReLU of {tap!r}, "
        "and a margin is computed from these; tap a place that has one"
    )


def _around(model: nn.Module, place: str) -> nn.BatchNorm2d | None:
    """The place itself, or one that runs its ReLU inside."""
    return _first(model.get_submodule(path) for path in (place, *_parents(place)))


def _until(calls: Sequence[Call], place: str) -> list[Call]:
    """The calls up to the last one of the place."""
    index = max((i for i, call in enumerate(calls) if call.path == place), default=-1)
    return list(calls[: index + 1])


def _giver(before: Sequence[Call]) -> nn.BatchNorm2d | None:
    """The one that gave exactly what the ReLU is given."""
    relu = before[-1].given if before else None
    return _first(c.module for c in reversed(before) if same(c.gave, relu, written=False))


def _in_block(
    calls: Sequence[Call], before: Sequence[Call], place: str, stage: str
) -> nn.BatchNorm2d | None:
    """The last of the shallowest ones in what is around the ReLU, as far as the stage reaches."""
    around = [path for path in _parents(place) if f"{path}.".startswith(f"{stage}.")]
    for scope in dict.fromkeys((*around, stage)):
        inside = [c for c in before if c.path.startswith(f"{scope}.") and _first([c.module])]
        block = next((call for call in reversed(calls) if call.path == scope), None)
        inside = [c for c in inside if not _is_beside(before, c, block)] or inside
        if inside:
            depth = min(call.path.count(".") for call in inside)
            return _first(c.module for c in reversed(inside) if c.path.count(".") == depth)
    return None


def _is_beside(before: Sequence[Call], norm: Call, block: Call | None) -> bool:
    """Whether it normalises what one convolution made of the block's own input: a shortcut."""
    makers = (call for call in reversed(before) if same(call.gave, norm.given))
    maker = next((call for call in makers if isinstance(call.module, nn.Conv2d)), None)
    return bool(maker and block and same(maker.given, block.given))


def _parents(path: str) -> Iterator[str]:
    while path := path.rpartition(".")[0]:
        yield path


def _first(modules: Iterable[nn.Module]) -> nn.BatchNorm2d | None:
    return next((m for m in modules if isinstance(m, nn.BatchNorm2d) and m.affine), None)
