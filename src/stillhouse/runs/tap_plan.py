"""What a method listens to, in words: places, their paths, shapes, and what stands between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest

import torch
from torch import Tensor, nn

from stillhouse.errors import UserError
from stillhouse.methods.base import Method
from stillhouse.methods.setting import Setting
from stillhouse.models import cost
from stillhouse.models.probe import shapes
from stillhouse.models.stages import paths, stages


def plan_of(method: Method, student: nn.Module, teacher: nn.Module, example: Tensor) -> list[str]:
    """A line for each pair of taps of a method, and of the methods inside it."""
    lines: list[str] = []
    for part in listening(method):
        ours = described(student, part.student_taps, example)
        theirs = described(teacher, part.teacher_taps, example)
        adapters = getattr(part, "adapters", ())
        for mine, other, adapter in zip_longest(ours, theirs, adapters, fillvalue=None):
            # two pairs may share a tap of one side, which is then listed once
            lines.append(f"{mine or '…'} -> {other or '…'}{between(adapter)}")
    return lines


def listening(method: Method) -> Iterator[Method]:
    """The methods with taps of their own, those that only hold others left out."""
    for part in method.modules():
        inner = any(isinstance(child, Method) for child in part.modules() if child is not part)
        if isinstance(part, Method) and part.student_taps and not inner:
            yield part


def described(network: nn.Module, taps: Sequence[str], example: Tensor) -> list[str]:
    """`stage2 = layer2 (128x28x28)` for each tap."""
    found, where = shapes(network, taps, example), paths(network, taps, example)
    return [named(tap, where[tap], found[tap]) for tap in taps]


def named(tap: str, path: str, shape: torch.Size) -> str:
    """A tap, where it is, and its shape without the batch."""
    size = "x".join(map(str, shape[1:]))
    return f"{tap} ({size})" if tap == path else f"{tap} = {path} ({size})"


def between(adapter: nn.Module | None) -> str:
    """What stands between two taps, and how much it learns."""
    if adapter is None or isinstance(adapter, nn.Identity):
        return ""
    kinds = {type(part).__name__ for part in adapter.modules() if not list(part.children())}
    return f" through {', '.join(sorted(kinds))} of {cost.parameters(adapter):,} parameters"


def suggestions(setting: Setting) -> str:
    """Pairs of stages that would fit, as a recipe would say them."""
    try:
        pairs = setting.stage_pairs()
    except UserError:
        return ""
    return f"pairs by size: [{', '.join(f'[{mine}, {other}]' for mine, other in pairs)}]"


def places(network: nn.Module, example: Tensor) -> str:
    """The aliases of a network and what they stand for."""
    known = {alias: path for alias, path in stages(network, example).items() if path}
    return ", ".join(
        alias if alias == path else f"{alias} = {path}" for alias, path in known.items()
    )
