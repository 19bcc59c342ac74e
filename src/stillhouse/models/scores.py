"""The class scores in the output of a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from stillhouse.errors import UserError


def class_scores(out: Any) -> Tensor:
    """A tensor (N, C), the first of several, or `.logits`; raises UserError for other outputs."""
    scores = main_tensor(out)
    if scores is None:
        raise UserError(
            f"the network returns a {type(out).__name__}, and classification needs class scores: "
            "a tensor (N, C), or an output with `.logits`"
        )
    return scores


def main_tensor(out: Any) -> Tensor | None:
    """The tensor of an output that holds the class scores of a classifier; None without one."""
    if isinstance(out, Tensor):
        return out
    main = getattr(out, "logits", None)
    if main is None and isinstance(out, Mapping):
        main = out.get("logits")
    if main is None and isinstance(out, tuple | list) and out:
        main = out[0]
    return main if isinstance(main, Tensor) else None
