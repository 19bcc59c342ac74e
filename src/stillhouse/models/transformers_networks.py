"""Networks of transformers by the name of their class, from a configuration without weights."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from typing import Any

from torch import Tensor, nn

from stillhouse.errors import UserError, did_you_mean

LIBRARY = "transformers"
SEGMENTERS = "ForSemanticSegmentation"
KINDS = ("ForImageClassification", SEGMENTERS)
CLASSES, CHANNELS = "num_labels", "num_channels"  # fields of configurations


def transformers_names() -> list[str]:
    """The classes that classify images or their pixels; none where transformers is missing."""
    return [] if find_spec(LIBRARY) is None else list(_classes())


@cache  # the package looks for each of its modules to tell its names
def _classes() -> list[str]:
    names = dir(importlib.import_module(LIBRARY))
    return sorted(name for name in names if name.endswith(KINDS))


def transformers_network(name: str, classes: int, channels: int, **options: Any) -> nn.Module:
    """A network with random weights; `options` are fields of its configuration.

    Raises UserError for a field that the configuration does not have, which transformers would keep
    and ignore.
    """
    found: Any = getattr(importlib.import_module(LIBRARY), name)
    fields = found.config_class().to_dict()
    for option in options:
        if option in (CLASSES, CHANNELS) or option not in fields:
            hint = did_you_mean(option, fields)
            raise UserError(f"{LIBRARY}/{name} has no option {option!r}{hint}")
    given = {CLASSES: classes, **options}
    if CHANNELS in fields:
        given[CHANNELS] = channels
    elif channels != 3:
        raise UserError(f"{LIBRARY}/{name} takes images of 3 channels, not of {channels}")
    network: nn.Module = found(found.config_class(**given))
    return network


def current_names(network: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Tensors of a file under the names that the installed transformers has for them.

    Files keep the names of the version that a network was first published with. The tensors are
    returned as they are for a network of another library, and where they do not fit the network.
    """
    if not type(network).__module__.startswith(f"{LIBRARY}."):
        return state
    settings = importlib.import_module(f"{LIBRARY}.utils.logging")
    settings.disable_progress_bar()
    try:
        load: Any = getattr(type(network), "from_pretrained")  # noqa: B009
        options = {"config": network.config, "state_dict": dict(state)}
        loaded, info = load(None, **options, output_loading_info=True)
    except (RuntimeError, ValueError):  # of shapes, which the caller describes
        return state
    finally:
        settings.enable_progress_bar()
    problems = ("missing_keys", "unexpected_keys", "mismatched_keys")
    if any(info.get(name) for name in problems):
        return state
    found: Mapping[str, Tensor] = loaded.state_dict()
    return found
