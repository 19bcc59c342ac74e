"""Cost of a network: parameters, floating-point operations, latency, peak memory."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from stillhouse.models.dry_run import undisturbed


def parameters(model: nn.Module) -> int:
    """The number of parameters, frozen ones too; a shared parameter counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def size(model: nn.Module) -> int:
    """The bytes of all parameters, frozen ones too."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def flops(model: nn.Module, *inputs: Tensor) -> int:
    """Floating-point operations of one forward, two for each multiply-accumulate.

    Convolutions, matrix products and attention are counted, cheaper operations are not.
    """
    counter = FlopCounterMode(display=False)
    with undisturbed(model), _without_gradients(model), counter:
        model(*inputs)
    return int(counter.get_total_flops())


@contextmanager
def _without_gradients(model: nn.Module) -> Iterator[None]:
    # torch's counter registers hooks on the gradients of inputs, which fails for a view of a
    # parameter made without gradients, such as a class token.
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in learning:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def latency(model: nn.Module, *inputs: Tensor, repeats: int = 10, warmup: int = 3) -> float:
    """Median seconds of one forward in eval mode, on the device where network and inputs are."""
    with undisturbed(model):
        for _ in range(warmup):
            model(*inputs)
        return median(_timed(model, *inputs) for _ in range(max(1, repeats)))


def peak_memory(model: nn.Module, *inputs: Tensor) -> int:
    """Bytes at the peak of one forward in eval mode: weights, inputs and intermediate tensors.

    On a GPU it is measured by the allocator, with the workspace of kernels. On a CPU the outputs of
    all operations are counted, without the workspace.
    """
    tensors = (*model.parameters(), *model.buffers(), *inputs)
    sizes = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}
    held = sum(sizes.values())
    with undisturbed(model):
        if any(tensor.is_cuda for tensor in inputs):
            return held + _allocated(model, *inputs)
        counter = _MemoryCounter(sizes)
        with counter:
            model(*inputs)
    return held + counter.peak


def _allocated(model: nn.Module, *inputs: Tensor) -> int:
    model(*inputs)  # the first call also allocates the workspaces of libraries
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    model(*inputs)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


class SavedBytes:
    """Counts the bytes that autograd keeps inside it for the backward, without parameters."""

    def __init__(self) -> None:
        self.total = 0
        self._known: set[int] = set()
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._add, lambda kept: kept)

    def __enter__(self) -> SavedBytes:
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._hooks.__exit__(*error)

    def _add(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if not isinstance(tensor, nn.Parameter) and storage.data_ptr() not in self._known:
            self._known.add(storage.data_ptr())
            self.total += storage.nbytes()
        return tensor


class _MemoryCounter(TorchDispatchMode):
    """Counts the bytes of the storages that were allocated inside and are still alive."""

    def __init__(self, known: Iterable[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known = set(known)
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._add(leaf.untyped_storage())
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known or key in self._alive:
            return

        def remove(_: object) -> None:
            self._alive.pop(key, None)
            self.now -= size

        self._alive[key] = weakref.ref(storage, remove)
        self.now += size
        self.peak = max(self.peak, self.now)


def _timed(model: nn.Module, *inputs: Tensor) -> float:
    synchronize(*inputs)
    start = perf_counter()
    model(*inputs)
    synchronize(*inputs)
    return perf_counter() - start


def synchronize(*inputs: Tensor) -> None:
    """Wait for a GPU to finish, whose calls return before; nothing for inputs on a CPU."""
    if any(tensor.is_cuda for tensor in inputs):
        torch.cuda.synchronize()
