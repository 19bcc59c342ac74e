"""The map before the ReLU that ends a part of a network."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from stillhouse.models.recording import Call, same
from stillhouse.models.rules import INPUT


def before_relu(calls: Sequence[Call], path: str) -> str | None:
    """Where the map is that becomes, through a ReLU, what the module at `path` gives.

    It is what that ReLU is given, `PATH@input`. Where the module ends without one and the first to
    read its map is a BatchNorm, as in a network that normalises first, it is what this gives. None
    where there is neither (a linear bottleneck), where a function and no module takes the ReLU, or
    where a module that runs again later takes it, because of those the last call is what is kept.
    """
    ends = [index for index, call in enumerate(calls) if call.path == path]
    if not ends:
        return None
    end = ends[-1]
    relu = _relu_that_gave(calls[: end + 1], calls[end])
    if relu is None:
        norm = _norm_that_reads(calls[end + 1 :], calls[end])
        relu = norm and _relu_that_gave(_inside(calls, norm), norm)
        if relu is None:
            return norm.path if norm and _is_last(calls, norm) else None
    return relu.path + INPUT if _is_last(calls, relu) else None


def is_relu(module: nn.Module) -> bool:
    """Whether it cuts off what is negative, and lets pass the rest or the rest up to a bound."""
    if isinstance(module, nn.Threshold):
        return module.threshold == module.value == 0
    return isinstance(module, nn.ReLU | nn.ReLU6)


def _relu_that_gave(calls: Sequence[Call], end: Call) -> Call | None:
    # Something written to the map after the ReLU, as by `out += shortcut`, makes it another map.
    given = [c for c in calls if is_relu(c.module) and same(c.gave, end.gave, written=False)]
    return given[-1] if given else None


def _norm_that_reads(calls: Sequence[Call], end: Call) -> Call | None:
    # A module around the reader finishes later: the first to finish is the reader itself. One that
    # hands on what it is given, as an Identity does, is passed over.
    readers = (call for call in calls if same(call.given, end.gave, written=False))
    first = next((call for call in readers if not same(call.gave, call.given)), None)
    return first if first is not None and isinstance(first.module, _BatchNorm) else None


def _inside(calls: Sequence[Call], norm: Call) -> list[Call]:
    """What a BatchNorm runs itself: some come with their ReLU inside."""
    return [call for call in calls if call.path.startswith(f"{norm.path}.")]


def _is_last(calls: Sequence[Call], call: Call) -> bool:
    return next(later for later in reversed(calls) if later.path == call.path) is call
