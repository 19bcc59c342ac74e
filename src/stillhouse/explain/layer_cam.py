"""Class activation maps of a network (LayerCAM: Jiang et al., 2021)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from stillhouse.models.aliases import find_aliases
from stillhouse.models.dry_run import undisturbed
from stillhouse.models.labelwise import find_labelwise_head
from stillhouse.models.recording import first_tensor
from stillhouse.models.tap_path import TapPath

if TYPE_CHECKING:
    from torchcam.methods import LayerCAM

LAST = "last"
Maps = Callable[[Tensor], Tensor | None]  # score of one class per image (N,) -> (N, h, w)


class MapLocation(NamedTuple):
    """Where the last feature map of a network is."""

    path: str  # of the module that gives it
    channels_last: bool = False  # (N, H, W, F) instead of (N, F, H, W)


def is_installed() -> bool:
    """Whether torchcam is installed; the extra `explain` installs it."""
    return _method() is not None


@contextmanager
def layer_cam(network: nn.Module, *example: Any) -> Iterator[Maps]:
    """Give a function that computes the maps of the network's last call from its class scores.

    Inside, gradients begin at the last feature map, so that a call costs little more than one
    without gradients. The function returns None for a network without such a map, for an ensemble
    and without torchcam.
    """
    method, location = _method(), find_last_map(network, *example)
    if method is None or location is None:
        yield lambda scores: None
        return
    module = network.get_submodule(location.path)
    channels = _channels_first if location.channels_last else None
    # Before all other hooks, which must see the tensor with the gradient, and after them.
    hooks = [module.register_forward_hook(_start_gradients, prepend=True)]
    try:
        with method(network, location.path, reshape_transform=channels) as extractor:
            hooks.append(module.register_forward_hook(_clone))
            yield lambda scores: _extract(extractor, scores)
    finally:
        for hook in hooks:
            hook.remove()


def find_last_map(network: nn.Module, *example: Any) -> MapLocation | None:
    """The input of a label-wise head, or the alias `last`; None for tokens and for an ensemble."""
    if hasattr(network, "members"):
        return None
    head = find_labelwise_head(network)
    if head is not None:
        tokens, channels_last = head.layout == "tokens", head.layout == "channels_last"
        return None if tokens else MapLocation(TapPath.parse(head.map).module, channels_last)
    alias = find_aliases(network, *example).get(LAST)
    tap = None if alias is None else TapPath.parse(alias)
    # Of a module that runs twice there are two maps, and an input is no output that can be hooked.
    if tap is None or tap.call is not None or tap.is_input:
        return None
    path = find_tensor_module(network, tap.module, *example)
    return None if path is None else MapLocation(path)


def find_tensor_module(network: nn.Module, path: str, *example: Any) -> str | None:
    """The outermost module at or below a path whose output is the map itself.

    The modules of transformers return the map inside an output object, which hooks cannot replace.
    None if no module below returns it as a tensor.
    """
    outputs: dict[str, Any] = {}

    def keep(name: str, module: nn.Module, args: Any, output: Any) -> None:
        outputs[name] = output

    hooks = [
        module.register_forward_hook(partial(keep, name))
        for name, module in network.get_submodule(path).named_modules(prefix=path)
    ]
    try:
        with undisturbed(network):
            network(*example)
    finally:
        for hook in hooks:
            hook.remove()
    last = first_tensor(outputs.get(path))
    names = [name for name, output in outputs.items() if output is last and last is not None]
    return min(names, key=lambda name: name.count("."), default=None)


def _method() -> type[LayerCAM] | None:
    try:
        from torchcam.methods import LayerCAM
    except ImportError:
        return None
    return LayerCAM


def _channels_first(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


def _start_gradients(module: nn.Module, args: Any, output: Any) -> Any:
    if not isinstance(output, Tensor):
        return output
    torch.set_grad_enabled(True)
    return output.detach().requires_grad_()


def _clone(module: nn.Module, args: Any, output: Any) -> Any:
    # A later layer may work in place, which a leaf of the graph forbids.
    return output.clone() if isinstance(output, Tensor) else output


def _extract(extractor: LayerCAM, scores: Tensor) -> Tensor | None:
    if not scores.requires_grad:  # the network detaches its scores
        return None
    try:
        with torch.enable_grad():
            (maps,) = extractor(0, scores[:, None], normalized=False)
    except RuntimeError as error:
        if "not connected" in str(error):  # the scores do not depend on the map
            return None
        raise
    finally:
        extractor.reset_hooks()
    return maps.detach() if maps.ndim == 3 and maps[0].numel() > 1 else None
