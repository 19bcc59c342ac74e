"""The class scores in whatever a network gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from stillhouse.errors import UserError


def class_scores(out: Any) -> Tensor:
    """A tensor (N, C), the first of several, or `.logits`."""
    if isinstance(out, Tensor):
        return out
    found = getattr(out, "logits", None)
    if found is None and isinstance(out, Mapping):
        found = out.get("logits")
    if found is None and isinstance(out, tuple | list):
        found = out[0]
    if not isinstance(found, Tensor):
        raise UserError(
            f"the network gives a {type(out).__name__}, and classification needs class scores: "
            "a tensor (N, C), or something with `.logits`"
        )
    return found
