"""The BatchNorm whose gain and bias are the deviation and mean of a map before its ReLU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import nn

from stillhouse.errors import UserError
from stillhouse.models.aliases import resolve_paths
from stillhouse.models.recording import Call, is_same, record
from stillhouse.models.tap_path import PRE, TapPath


def find_norms(model: nn.Module, taps: Iterable[str], *example: Any) -> dict[str, nn.BatchNorm2d]:
    """For each tap before a ReLU, as `stage1@pre`, the BatchNorm whose gain and bias describe it.

    It is the module of the tap, or the one whose output the tap is. Of a sum of branches it is the
    last to run of those with the shortest paths in the block, because the path of a shortcut's is
    longer. With its gain g and bias b channel c of the tap is taken as N(b_c, g_c^2) (Heo et al.,
    2019). Raises UserError for a tap without such a BatchNorm.
    """
    taps = list(taps)
    bases = [tap.removesuffix(PRE) for tap in taps]
    paths = resolve_paths(model, [*taps, *bases], *example)
    calls = record(model, *example).calls
    return {
        tap: _norm(model, calls, tap, TapPath.parse(paths[tap]), paths[base])
        for tap, base in zip(taps, bases, strict=True)
    }


def _norm(
    model: nn.Module, calls: Sequence[Call], tap: str, path: TapPath, stage: str
) -> nn.BatchNorm2d:
    stage = path.module.rpartition(".")[0] if stage == str(path) else stage
    before = _until(calls, path)
    for norm in (
        _around(model, path.module),
        _source(before),
        _in_block(calls, before, path.module, stage),
    ):
        if norm is not None:
            return norm
    raise UserError(
        f"{type(model).__name__} has no BatchNorm with gain and bias before the ReLU of {tap!r}, "
        "and a margin is computed from these; tap a place that has one"
    )


def _around(model: nn.Module, place: str) -> nn.BatchNorm2d | None:
    """The module itself, or a BatchNorm that contains it, because it applies its ReLU itself."""
    return _first(model.get_submodule(path) for path in (place, *_parents(place)))


def _until(calls: Sequence[Call], path: TapPath) -> list[Call]:
    """The calls up to the one of the tap: the last of its module where it names none."""
    indices = [index for index, call in enumerate(calls) if call.path == path.module]
    if path.call is not None:
        indices = indices[: path.call + 1]
    return list(calls[: indices[-1] + 1]) if indices else []


def _source(before: Sequence[Call]) -> nn.BatchNorm2d | None:
    """The one whose output is exactly the input of the ReLU."""
    relu = before[-1].input if before else None
    return _first(c.module for c in reversed(before) if is_same(c.output, relu, unwritten=True))


def _in_block(
    calls: Sequence[Call], before: Sequence[Call], place: str, stage: str
) -> nn.BatchNorm2d | None:
    """The last of those with the shortest paths in the modules around the ReLU, up to the stage."""
    around = [path for path in _parents(place) if f"{path}.".startswith(f"{stage}.")]
    for scope in dict.fromkeys((*around, stage)):
        inside = [c for c in before if c.path.startswith(f"{scope}.") and _first([c.module])]
        block = next((call for call in reversed(calls) if call.path == scope), None)
        inside = [c for c in inside if not _is_shortcut(before, c, block)] or inside
        if inside:
            depth = min(call.path.count(".") for call in inside)
            return _first(c.module for c in reversed(inside) if c.path.count(".") == depth)
    return None


def _is_shortcut(before: Sequence[Call], norm: Call, block: Call | None) -> bool:
    """Whether it normalises a convolution of the block's own input: a shortcut."""
    sources = (call for call in reversed(before) if is_same(call.output, norm.input))
    conv = next((call for call in sources if isinstance(call.module, nn.Conv2d)), None)
    return bool(conv and block and is_same(conv.input, block.input))


def _parents(path: str) -> Iterator[str]:
    while path := path.rpartition(".")[0]:
        yield path


def _first(modules: Iterable[nn.Module]) -> nn.BatchNorm2d | None:
    return next((m for m in modules if isinstance(m, nn.BatchNorm2d) and m.affine), None)
