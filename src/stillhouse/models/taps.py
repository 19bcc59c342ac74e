"""Reading the tensors inside a network while it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from stillhouse.errors import UserError
from stillhouse.models.aliases import resolve_paths
from stillhouse.models.dry_run import undisturbed
from stillhouse.models.recording import first_tensor
from stillhouse.models.tap_path import TapPath
from stillhouse.types import Trace


class Tapped(nn.Module):
    """A network that returns a Trace: its output, and the outputs of the named modules.

    A tap is the path of a module (`layer4`), `PATH@input` for the first tensor that it is given,
    or an alias (`stage3`, `penultimate`; see `find_aliases`), which needs an example unless the
    network declares it; the Trace has it under the name that was asked for. A module that is called
    more than once in a forward needs the number of the call, from 0: `PATH@1`, `PATH@input@1`. Of
    an output that is a tuple the first tensor is taken. The network itself stays whole in `model`.

    Hooks are set here and never later, because a compiled network does not see later ones, and
    they write only during a call, so that nothing is held in between.
    """

    def __init__(
        self,
        model: nn.Module,
        taps: Iterable[str] | Mapping[str, str] = (),
        example: Sequence[Any] = (),
    ) -> None:
        super().__init__()
        self.model = model
        names = dict(taps) if isinstance(taps, Mapping) else {name: name for name in taps}
        resolved = resolve_paths(model, names.values(), *example)
        self.paths = {name: resolved[path] for name, path in names.items()}
        self._capture = _Capture()
        self._writers = {
            name: _Writer(self._capture, name, TapPath.parse(path).call)
            for name, path in self.paths.items()
        }
        self._hooks = [_attach(model, self.paths[name], self._writers[name]) for name in names]
        if example and names:
            self._dry_run(example)

    def forward(self, *inputs: Any) -> Trace:
        """The network's output, and the taps by the names that were asked for."""
        taps = self._capture.begin()
        try:
            out = self.model(*inputs)
            overwritten, calls = self._capture.overwritten(), self._capture.calls
        finally:
            self._capture.end()
        self._check_calls(calls)
        self._check(taps, overwritten)
        return Trace(out, taps)

    def close(self) -> None:
        """Remove the hooks."""
        for hook in self._hooks:
            hook.remove()

    def _dry_run(self, example: Sequence[Any]) -> None:
        # relu(inplace=True) and `out += shortcut` write over the output of the module before them:
        # of those taps a copy is kept, of all others the tensor itself.
        self._capture.begin()
        try:
            with undisturbed(self.model):
                self.model(*example)
            for name in self._capture.overwritten():
                self._writers[name].copies = True
            calls = self._capture.calls
        finally:
            self._capture.end()
        self._check_calls(calls)

    def _check_calls(self, calls: Mapping[str, int]) -> None:
        """Refuse a tap that could be the tensor of one call or of another."""
        for name, count in calls.items():
            if count > 1 and self._writers[name].call is None:
                path = TapPath.parse(self.paths[name])
                first, last = str(path._replace(call=0)), str(path._replace(call=count - 1))
                raise UserError(
                    f"tap {name!r}: {type(self.model).__name__} calls {path.module!r} {count} "
                    f"times in one forward; say which call, {first!r} to {last!r}"
                )

    def _check(self, taps: Mapping[str, Tensor], overwritten: Sequence[str]) -> None:
        for name, path in self.paths.items():
            if name not in taps:
                raise UserError(
                    f"tap {name!r}: the forward of {type(self.model).__name__} gives no tensor at "
                    f"{path!r}; tap a module that the forward calls"
                )
        if overwritten:
            raise UserError(
                f"tap {overwritten[0]!r} is overwritten in place by a later layer; "
                "give Tapped an example batch, so that it keeps a copy"
            )


def tap_shapes(model: nn.Module, taps: Iterable[str], *inputs: Any) -> dict[str, torch.Size]:
    """The shape of each tap, path or alias, from one dry run that leaves the network as it was."""
    tapped = Tapped(model, taps, example=inputs)
    try:
        with undisturbed(model):
            trace = tapped(*inputs)
    finally:
        tapped.close()
    return {name: tap.shape for name, tap in trace.taps.items()}


class _Capture:
    """What the hooks of one network have written during the forward in progress."""

    def __init__(self) -> None:
        self.taps: dict[str, Tensor] | None = None  # None between two forwards
        self.versions: dict[str, int] = {}
        self.calls: dict[str, int] = {}  # of the module of each tap

    def begin(self) -> dict[str, Tensor]:
        """Start a forward; returns the dict that the hooks will fill."""
        taps: dict[str, Tensor] = {}
        self.taps, self.versions, self.calls = taps, {}, {}
        return taps

    def end(self) -> None:
        """Hold nothing until the next forward."""
        self.taps = None

    def overwritten(self) -> list[str]:
        """The taps that were written to after they had been captured."""
        taps = self.taps or {}
        return [name for name, version in self.versions.items() if taps[name]._version != version]


class _Writer:
    """One hook: a class, because a network must survive deepcopy and pickle with its hooks on."""

    def __init__(self, capture: _Capture, name: str, call: int | None) -> None:
        self.capture, self.name, self.call, self.copies = capture, name, call, False

    def __call__(self, module: nn.Module, args: Any, *output: Any) -> None:
        """As a forward hook it captures the output of a module, as a forward pre-hook its input."""
        capture, name = self.capture, self.name
        if capture.taps is None:
            return
        number = capture.calls.get(name, 0)
        capture.calls[name] = number + 1
        tap = first_tensor(output or args)
        if tap is None or (self.call is not None and number != self.call):
            return
        capture.taps[name] = tap.clone() if self.copies else tap
        # A compiled graph has no versions to compare and inference tensors do not count theirs.
        if not (self.copies or torch.compiler.is_compiling() or tap.is_inference()):
            capture.versions[name] = tap._version


def _attach(model: nn.Module, path: str, writer: _Writer) -> RemovableHandle:
    tap = TapPath.parse(path)
    module = model.get_submodule(tap.module)
    if tap.is_input:
        return module.register_forward_pre_hook(writer)
    return module.register_forward_hook(writer)
