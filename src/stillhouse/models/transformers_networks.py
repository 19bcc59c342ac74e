"""Networks of transformers by the name of their class, from a configuration without weights."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

from torch import nn

from stillhouse.errors import UserError, did_you_mean

LIBRARY = "transformers"
SEGMENTERS = "ForSemanticSegmentation"
KINDS = ("ForImageClassification", SEGMENTERS)
CLASSES, CHANNELS = "num_labels", "num_channels"  # fields of configurations


def transformers_names() -> list[str]:
    """The classes that classify images or their pixels; none where transformers is missing."""
    if find_spec(LIBRARY) is None:
        return []
    return sorted(name for name in dir(importlib.import_module(LIBRARY)) if name.endswith(KINDS))


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
