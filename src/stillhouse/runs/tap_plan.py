"""The taps of a method in words: aliases, paths, shapes, and the adapters between networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest

import torch
from torch import Tensor, nn

from stillhouse.errors import UserError
from stillhouse.methods.base import Method
from stillhouse.methods.setting import Setting
from stillhouse.models import cost
from stillhouse.models.aliases import find_aliases, refusal, resolve_paths
from stillhouse.models.taps import tap_shapes


def plan_of(method: Method, student: nn.Module, teacher: nn.Module, example: Tensor) -> list[str]:
    """A line for each pair of taps of a method, and of the methods inside it."""
    lines: list[str] = []
    for part in tapping_methods(method):
        student_taps = describe_taps(student, part.student_taps, example)
        teacher_taps = describe_taps(teacher, part.teacher_taps, example)
        adapters = getattr(part, "adapters", ())
        for one, other, adapter in zip_longest(
            student_taps, teacher_taps, adapters, fillvalue=None
        ):
            # two pairs may share a tap of one side, which is then listed once
            lines.append(f"{one or '…'} -> {other or '…'}{describe_adapter(adapter)}")
    return lines


def tapping_methods(method: Method) -> Iterator[Method]:
    """The methods with taps of their own, without those that only hold others."""
    for part in method.modules():
        inner = any(isinstance(child, Method) for child in part.modules() if child is not part)
        if isinstance(part, Method) and part.student_taps and not inner:
            yield part


def describe_taps(network: nn.Module, taps: Sequence[str], example: Tensor) -> list[str]:
    """`stage2 = layer2 (128x28x28)` for each tap."""
    shapes, paths = tap_shapes(network, taps, example), resolve_paths(network, taps, example)
    return [describe_tap(tap, paths[tap], shapes[tap]) for tap in taps]


def describe_tap(tap: str, path: str, shape: torch.Size) -> str:
    """A tap, its path, and its shape without the batch axis."""
    size = "x".join(map(str, shape[1:]))
    return f"{tap} ({size})" if tap == path else f"{tap} = {path} ({size})"


def describe_adapter(adapter: nn.Module | None) -> str:
    """The layers between two taps and their number of parameters; empty for an identity."""
    if adapter is None or isinstance(adapter, nn.Identity):
        return ""
    kinds = {type(part).__name__ for part in adapter.modules() if not list(part.children())}
    return f" through {', '.join(sorted(kinds))} of {cost.parameters(adapter):,} parameters"


def suggestions(setting: Setting) -> str:
    """Pairs of stages and of levels that would fit, as they are written in a recipe."""
    ways = {"size": setting.stage_pairs, "level": setting.level_pairs}
    found = []
    for name, make_pairs in ways.items():
        try:
            pairs = make_pairs()
        except UserError:
            continue
        listed = ", ".join(f"[{student}, {teacher}]" for student, teacher in pairs)
        found.append(f"pairs by {name}: [{listed}]")
    return "; ".join(found)


def describe_places(network: nn.Module, example: Tensor) -> str:
    """The aliases of a network with their paths, levels too; why there are none, where so."""
    aliases = {alias: path for alias, path in find_aliases(network, example).items() if path}
    if not aliases:
        return refusal(network, "stage1", example) or "none"
    return ", ".join(
        alias if alias == path else f"{alias} = {path}" for alias, path in aliases.items()
    )
