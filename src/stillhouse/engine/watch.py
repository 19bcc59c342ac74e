"""Seeing that a loss is no longer a number, without asking the device at each step."""

from __future__ import annotations

import torch
from torch import Tensor

from stillhouse.errors import UserError
from stillhouse.types import Terms


class Watch:
    """Remembers, on the device, the first step at which each term was not finite."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.first: Tensor | None = None

    @torch.no_grad()
    def look(self, terms: Terms, step: int) -> None:
        """Note the terms of one step."""
        # an empty set has mass 0 and total 0, and is finite
        values = torch.stack([term.total.detach().float() for term in terms.values()])
        if self.first is None:
            self.names = tuple(terms)
            self.first = torch.full((len(terms),), -1, dtype=torch.long, device=values.device)
        new = (self.first < 0) & ~values.isfinite()
        self.first = torch.where(new, step, self.first)

    def verdict(self) -> tuple[int, list[str]] | None:
        """The first bad step and the terms that were bad in it; this asks the device."""
        if self.first is None:
            return None
        steps = self.first.tolist()
        bad = [step for step in steps if step >= 0]
        if not bad:
            return None
        return min(bad), [n for n, s in zip(self.names, steps, strict=True) if s == min(bad)]


class NonFinite(UserError):
    """A loss that is no number any more."""
