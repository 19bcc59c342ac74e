"""Where in an image a network sees a class (LayerCAM: Jiang et al., 2021)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from stillhouse.models.ensemble import Ensemble
from stillhouse.models.labelwise import MAP, Labelwise
from stillhouse.models.stages import stages

if TYPE_CHECKING:
    from torchcam.methods import LayerCAM

LAST = "last"
Shoot = Callable[[Tensor, Tensor], Tensor | None]  # logits (N, C), classes (N,) -> (N, h, w)


def installed() -> bool:
    """Whether torchcam is there, which the extra `explain` installs."""
    return _method() is not None


@contextmanager
def camera(network: nn.Module, *example: Tensor) -> Iterator[Shoot]:
    """Look at the last map of a network while it is called: what gives the maps of its last call.

    Inside, the network begins to take gradients at that map, so that a call costs little more than
    one without. There is nothing to see in a network without such a map, in several at once, or
    without torchcam: None.
    """
    method, place = _method(), find(network, *example)
    if method is None or place is None:
        yield lambda logits, classes: None
        return
    module = network.get_submodule(place.path)
    channels = _channels_first if place.channels_last else None
    # Before all other hooks, which must be given what has the gradient, and after them.
    hooks = [module.register_forward_hook(_begin, prepend=True)]
    try:
        with method(network, place.path, reshape_transform=channels) as extractor:
            hooks.append(module.register_forward_hook(_copy))
            yield lambda logits, classes: _shot(extractor, logits, classes)
    finally:
        for hook in hooks:
            hook.remove()


class Place(NamedTuple):
    """Where the last map of a network is."""

    path: str
    channels_last: bool = False  # (N, H, W, F) instead of (N, F, H, W)


def find(network: nn.Module, *example: Tensor) -> Place | None:
    """What a label-wise head reads, or the alias `last`; of several networks at once none is it."""
    if isinstance(network, Ensemble):
        return None
    heads = [(path, part) for path, part in network.named_modules() if isinstance(part, Labelwise)]
    if not heads:
        path = stages(network, *example).get(LAST)
        return None if path is None else Place(path)
    ((prefix, head), *_) = heads
    if head.tokens.layout == "tokens":
        return None
    inside = f"{prefix}.trunk.model.{head.trunk.paths[MAP]}".removeprefix(".")
    return Place(inside, head.tokens.layout == "channels_last")


def _method() -> type[LayerCAM] | None:
    try:
        from torchcam.methods import LayerCAM
    except ImportError:
        return None
    return LayerCAM


def _channels_first(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


def _begin(module: nn.Module, args: Any, output: Any) -> Any:
    if not isinstance(output, Tensor):
        return output
    torch.set_grad_enabled(True)
    return output.detach().requires_grad_()


def _copy(module: nn.Module, args: Any, output: Any) -> Any:
    # A later layer may write over it, which no leaf of a graph allows.
    return output.clone() if isinstance(output, Tensor) else output


def _shot(extractor: LayerCAM, logits: Tensor, classes: Tensor) -> Tensor | None:
    if not logits.requires_grad:  # a network that forbids gradients
        return None
    try:
        with torch.enable_grad():
            (found,) = extractor(classes.tolist(), logits, normalized=False)
    except RuntimeError as error:
        if "not connected" in str(error):  # a map that the scores do not come from
            return None
        raise
    finally:
        extractor.reset_hooks()
    return found.detach() if found.ndim == 3 and found[0].numel() > 1 else None
