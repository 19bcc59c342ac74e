"""Which modules ran in one forward, and what each was given and returned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from stillhouse.models.dry_run import undisturbed
from stillhouse.models.tap_path import TapPath


class Snapshot(NamedTuple):
    """A tensor, and how often it had been written to in place by then."""

    tensor: Tensor
    version: int


class Call(NamedTuple):
    """One call of a module."""

    path: str
    module: nn.Module
    input: Snapshot | None  # the first tensor that it was given
    output: Snapshot | None  # the first tensor that it returned

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of its output; () where it returned no tensor."""
        return () if self.output is None else tuple(self.output.tensor.shape)


class Recording(NamedTuple):
    """One forward: the calls in the order in which they finished, and what the network returned."""

    calls: list[Call]  # the last is that of the network itself
    output: Any

    def runs(self, path: str) -> int:
        """How often the module at `path` was called."""
        return sum(call.path == path for call in self.calls)


def record(model: nn.Module, *example: Any) -> Recording:
    """One forward in eval mode that leaves the network as it was."""
    with undisturbed(model), _hooks(model) as calls:
        output = model(*example)
    return Recording(calls, output)


def path_of_call(calls: Sequence[Call], call: Call, is_input: bool = False) -> str:
    """The tap of the output or input of one call; it has a number if the module runs again."""
    same_module = [other for other in calls if other.path == call.path]
    number = next(n for n, other in enumerate(same_module) if other is call)
    return str(TapPath(call.path, is_input, number if len(same_module) > 1 else None))


def is_same(one: Snapshot | None, other: Snapshot | None, *, unwritten: bool = False) -> bool:
    """Whether two tensors are the same memory; `unwritten` if nothing was written between."""
    if one is None or other is None:
        return False
    same = _memory(one.tensor) == _memory(other.tensor)
    return same and (one.version == other.version or not unwritten)


def first_tensor(value: Any) -> Tensor | None:
    """The first tensor of an output that may be a tensor, a sequence or a mapping of them."""
    if isinstance(value, Tensor):
        return value
    for item in _items(value):
        tensor = first_tensor(item)
        if tensor is not None:
            return tensor
    return None


def count_tensors(value: Any) -> int:
    """The number of tensors in an output, in all sequences and mappings that it holds."""
    return 1 if isinstance(value, Tensor) else sum(count_tensors(item) for item in _items(value))


def _items(value: Any) -> tuple[Any, ...]:
    if isinstance(value, Mapping):
        return tuple(value.values())
    return tuple(value) if isinstance(value, list | tuple) else ()


class _Hook:
    """Both hooks of one module. Its input is noted before the module may write over it."""

    def __init__(self, path: str, calls: list[Call]) -> None:
        self.path, self.calls = path, calls
        self.inputs: list[Snapshot | None] = []  # of the calls that have not finished

    def before(self, module: nn.Module, args: Any) -> None:
        self.inputs.append(_snapshot(args))

    def after(self, module: nn.Module, args: Any, output: Any) -> None:
        self.calls.append(Call(self.path, module, self.inputs.pop(), _snapshot(output)))


@contextmanager
def _hooks(model: nn.Module) -> Iterator[list[Call]]:
    calls: list[Call] = []
    handles = []
    for path, module in model.named_modules():
        hook = _Hook(path, calls)
        handles.append(module.register_forward_pre_hook(hook.before))
        handles.append(module.register_forward_hook(hook.after))
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _snapshot(value: Any) -> Snapshot | None:
    tensor = first_tensor(value)
    if tensor is None:
        return None
    # Inference tensors have no version counter.
    return Snapshot(tensor, 0 if tensor.is_inference() else tensor._version)


def _memory(tensor: Tensor) -> tuple[object, ...]:
    storage = tensor.untyped_storage()._cdata
    return storage, tensor.storage_offset(), tensor.shape, tensor.stride()
