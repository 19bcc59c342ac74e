"""Reading a network while it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from stillhouse.errors import UserError
from stillhouse.models.dry_run import undisturbed
from stillhouse.models.stages import INPUT, first_tensor, paths
from stillhouse.types import Trace


class Tapped(nn.Module):
    """A network that answers with a Trace: its output, and what the named modules gave.

    A tap is the path of a module (`layer4`), `PATH@input` for the first thing that it is given, or,
    with an example, an alias (`stage3`, `penultimate`; see `stages`); the Trace calls it by the
    name that was asked. Of a module that runs twice in a forward the last output is kept, of a
    tuple the first tensor. The network itself stays whole in `model`.

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
        asked = dict(taps) if isinstance(taps, Mapping) else {name: name for name in taps}
        where = paths(model, asked.values(), *example)
        self.paths = {name: where[path] for name, path in asked.items()}
        self._page = _Page()
        self._pens = {name: _Pen(self._page, name) for name in asked}
        self._hooks = [_attach(model, path, self._pens[name]) for name, path in self.paths.items()]
        if example and asked:
            self._find_overwritten(example)

    def forward(self, *inputs: Any) -> Trace:
        """What the network says, and the taps by the names that were asked."""
        taps: dict[str, Tensor] = {}
        self._page.taps, self._page.versions = taps, {}
        try:
            out = self.model(*inputs)
            overwritten = self._page.overwritten()
        finally:
            self._page.taps = None
        self._check(taps, overwritten)
        return Trace(out, taps)

    def close(self) -> None:
        """Take the hooks off again."""
        for hook in self._hooks:
            hook.remove()

    def _find_overwritten(self, example: Sequence[Any]) -> None:
        # relu(inplace=True) and `out += shortcut` write over what the module before them gave:
        # of those taps a copy is kept, of all others the tensor itself.
        self._page.taps, self._page.versions = {}, {}
        try:
            with undisturbed(self.model):
                self.model(*example)
            for name in self._page.overwritten():
                self._pens[name].copies = True
        finally:
            self._page.taps = None

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
                "give Tapped an example batch, so that it knows to keep a copy"
            )


class _Page:
    """Where the hooks of one network write during a call."""

    def __init__(self) -> None:
        self.taps: dict[str, Tensor] | None = None
        self.versions: dict[str, int] = {}

    def overwritten(self) -> list[str]:
        """The taps that were written to after they had been taken."""
        taps = self.taps or {}
        return [name for name, old in self.versions.items() if taps[name]._version != old]


class _Pen:
    """One hook: a class, because a network must survive deepcopy and pickle with its hooks on."""

    def __init__(self, page: _Page, name: str) -> None:
        self.page, self.name, self.copies = page, name, False

    def __call__(self, module: nn.Module, args: Any, output: Any = None) -> None:
        """After a module its output is written down, before it what it was given."""
        if self.page.taps is None:
            return
        tap = first_tensor(args if output is None else output)
        if tap is None:
            return
        self.page.taps[self.name] = tap.clone() if self.copies else tap
        # A compiled graph has no versions to compare and inference tensors do not count theirs.
        if not (self.copies or torch.compiler.is_compiling() or tap.is_inference()):
            self.page.versions[self.name] = tap._version


def _attach(model: nn.Module, path: str, pen: _Pen) -> RemovableHandle:
    module = model.get_submodule(path.removesuffix(INPUT))
    if path.endswith(INPUT):
        return module.register_forward_pre_hook(pen)
    return module.register_forward_hook(pen)
