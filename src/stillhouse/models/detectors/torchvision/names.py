"""The names of stages and levels in a backbone of torchvision's detectors."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from stillhouse.models.guesses import NotSafe, guess_stages, map_calls
from stillhouse.models.recording import Call, Snapshot, is_same, record

BODY = "body"  # of a backbone with a feature pyramid


def find_stages(backbone: nn.Module, example: Tensor) -> dict[str, str]:
    """The path of each stage of a backbone: `stage1` -> `body.layer1`.

    Empty for a backbone that returns several maps and has no `body`: its stages could be levels.
    """
    body = getattr(backbone, BODY, None)
    trunk, prefix = (body, f"{BODY}.") if isinstance(body, nn.Module) else (backbone, "")
    recording = record(trunk, example)
    if not prefix and not isinstance(recording.output, Tensor):
        return {}
    size = (example.shape[-2], example.shape[-1])
    try:
        paths = guess_stages(trunk, recording, map_calls(recording.calls, size))
    except NotSafe:
        return {}
    return {f"stage{number}": f"{prefix}{path}" for number, path in enumerate(paths, 1)}


def find_levels(
    calls: Sequence[Call], levels: Sequence[Tensor], strides: Sequence[int]
) -> dict[str, str]:
    """The path of the module that returns each level, by the logarithm of its stride: `p3`.

    A level that a function returns, as a pooled one, has none.
    """
    # a container that returns several maps holds the modules of other levels, too
    inner = [_innermost(calls, level) for level in levels]
    named: dict[str, str] = {}
    for level, path, stride in zip(levels, inner, strides, strict=True):
        if path and stride & (stride - 1) == 0:
            others = [other for other in inner if other != path]
            found = [
                call.path
                for call in calls
                if _returns(call, level)
                and _is_inside(path, call.path)
                and not any(_is_inside(other, call.path) for other in others)
            ]
            named.setdefault(f"p{stride.bit_length() - 1}", min(found, key=len))
    return named


def _innermost(calls: Sequence[Call], level: Tensor) -> str:
    """The first module to return a map; empty if none does."""
    return next((call.path for call in calls if _returns(call, level)), "")


def _returns(call: Call, level: Tensor) -> bool:
    return bool(call.path) and is_same(call.output, Snapshot(level, 0))


def _is_inside(path: str, parent: str) -> bool:
    """Whether a module is the parent itself, or inside it."""
    return f"{path}.".startswith(f"{parent}.")
