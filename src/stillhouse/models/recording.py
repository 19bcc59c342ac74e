"""Which modules ran in one forward, and what each was given and gave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from stillhouse.models.dry_run import undisturbed


class Seen(NamedTuple):
    """A tensor, and how often it had been written to by then."""

    tensor: Tensor
    version: int


class Call(NamedTuple):
    """One module as it ran, in the order in which modules finished."""

    path: str
    module: nn.Module
    given: Seen | None
    gave: Seen | None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of what it gave; () where that is no tensor."""
        return () if self.gave is None else tuple(self.gave.tensor.shape)


def record(model: nn.Module, *example: Any) -> list[Call]:
    """One forward in eval mode that leaves the network as it was; the last call is its own."""
    with undisturbed(model), _recorded(model) as calls:
        model(*example)
    return calls


def same(seen: Seen | None, other: Seen | None, *, written: bool = True) -> bool:
    """Whether two tensors are one, with `written=False` only if nothing was written between."""
    if seen is None or other is None:
        return False
    one, two = _place(seen.tensor), _place(other.tensor)
    return one == two and (written or seen.version == other.version)


def first_tensor(value: Any) -> Tensor | None:
    """The first tensor of an output that may be a tensor, a sequence or a mapping of them."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            tensor = first_tensor(item)
            if tensor is not None:
                return tensor
    return None


class _Recorder:
    """The hooks of one module. What it was given is looked at before it may write over it."""

    def __init__(self, path: str, calls: list[Call]) -> None:
        self.path, self.calls = path, calls
        self.given: list[Seen | None] = []  # of the calls that have not finished

    def before(self, module: nn.Module, args: Any) -> None:
        self.given.append(_seen(args))

    def after(self, module: nn.Module, args: Any, output: Any) -> None:
        self.calls.append(Call(self.path, module, self.given.pop(), _seen(output)))


@contextmanager
def _recorded(model: nn.Module) -> Iterator[list[Call]]:
    calls: list[Call] = []
    hooks = []
    for path, module in model.named_modules():
        recorder = _Recorder(path, calls)
        hooks.append(module.register_forward_pre_hook(recorder.before))
        hooks.append(module.register_forward_hook(recorder.after))
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _seen(value: Any) -> Seen | None:
    tensor = first_tensor(value)
    if tensor is None:
        return None
    # Inference tensors do not count.
    return Seen(tensor, 0 if tensor.is_inference() else tensor._version)


def _place(tensor: Tensor) -> tuple[object, ...]:
    storage = tensor.untyped_storage()._cdata
    return storage, tensor.storage_offset(), tensor.shape, tensor.stride()
