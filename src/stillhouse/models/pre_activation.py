"""The map before the ReLU that ends a part of a network."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from stillhouse.models.recording import Call, is_same, path_of_call


def before_relu(calls: Sequence[Call], path: str) -> str | None:
    """The tap of the map that becomes, through a ReLU, the output of the module at `path`.

    It is the input of that ReLU, `PATH@input`. Where the module ends without one and the first to
    read its output is a BatchNorm, as in pre-activation networks, it is the output of this. None
    where there is neither (a linear bottleneck), where a function and no module applies the ReLU,
    or where the module that applies it is called again later.
    """
    ends = [index for index, call in enumerate(calls) if call.path == path]
    if not ends:
        return None
    end = ends[-1]
    relu = _relu_that_returned(calls[: end + 1], calls[end])
    if relu is None:
        norm = _norm_that_reads(calls[end + 1 :], calls[end])
        relu = norm and _relu_that_returned(_inside(calls, norm), norm)
        if relu is None:
            return path_of_call(calls, norm) if norm and _is_last(calls, norm) else None
    return path_of_call(calls, relu, is_input=True) if _is_last(calls, relu) else None


def is_relu(module: nn.Module) -> bool:
    """Whether it sets negative values to 0, and keeps the rest or the rest up to a bound."""
    if isinstance(module, nn.Threshold):
        return module.threshold == module.value == 0
    return isinstance(module, nn.ReLU | nn.ReLU6)


def _relu_that_returned(calls: Sequence[Call], end: Call) -> Call | None:
    # Something written to the map after the ReLU, as by `out += shortcut`, makes it another map.
    relus = [
        call
        for call in calls
        if is_relu(call.module) and is_same(call.output, end.output, unwritten=True)
    ]
    return relus[-1] if relus else None


def _norm_that_reads(calls: Sequence[Call], end: Call) -> Call | None:
    # A module around the reader finishes later: the first to finish is the reader itself. A module
    # that returns its input, as an Identity does, is passed over.
    readers = (call for call in calls if is_same(call.input, end.output, unwritten=True))
    first = next((call for call in readers if not is_same(call.output, call.input)), None)
    return first if first is not None and isinstance(first.module, _BatchNorm) else None


def _inside(calls: Sequence[Call], norm: Call) -> list[Call]:
    """The calls inside a BatchNorm: some apply their ReLU themselves."""
    return [call for call in calls if call.path.startswith(f"{norm.path}.")]


def _is_last(calls: Sequence[Call], call: Call) -> bool:
    return next(later for later in reversed(calls) if later.path == call.path) is call
