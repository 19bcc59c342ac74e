"""Detecting losses that are not finite, without a device synchronisation at each step."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from stillhouse.errors import UserError
from stillhouse.types import Terms


class NonFiniteTerms(NamedTuple):
    """The terms that were not finite at the first such step."""

    step: int
    terms: list[str]  # the names of these terms
    without_mass: list[str]  # those of them whose total was finite, but had no mass


class Watch:
    """Keeps, on the device, the first step at which each term was not finite."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.first: Tensor | None = None  # (K,) step of the first failure, -1 for none
        self.without_mass: Tensor | None = None  # (K,) bool

    @torch.no_grad()
    def record(self, terms: Terms, weighted_means: Tensor, step: int) -> None:
        """Take in the terms of one step and their parts in the loss: K terms, (K,)."""
        totals = torch.stack([term.total.detach().float() for term in terms.values()])
        if self.first is None or self.without_mass is None:
            self.names = tuple(terms)
            self.first = torch.full((len(terms),), -1, dtype=torch.long, device=totals.device)
            self.without_mass = torch.zeros_like(self.first, dtype=torch.bool)
        new = (self.first < 0) & ~weighted_means.detach().isfinite()
        self.first = torch.where(new, step, self.first)
        self.without_mass = torch.where(new, totals.isfinite(), self.without_mass)

    def failure(self) -> NonFiniteTerms | None:
        """The first failure, None if every term was finite; this waits for the device."""
        if self.first is None or self.without_mass is None:
            return None
        steps, without_mass = self.first.tolist(), self.without_mass.tolist()
        if not (failed := [step for step in steps if step >= 0]):
            return None
        step = min(failed)
        lacking = {
            name: lacks
            for name, first, lacks in zip(self.names, steps, without_mass, strict=True)
            if first == step
        }
        return NonFiniteTerms(step, list(lacking), [n for n, lacks in lacking.items() if lacks])


class NonFiniteLoss(UserError):
    """A loss that is not finite."""
