"""The loss of each row of a site, before it is reduced to a term."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from stillhouse.objectives.logit import LogitObjective
from stillhouse.objectives.reduction import Mean
from stillhouse.spec import spec
from stillhouse.types import Site, Term


@spec
class _Unreduced(Mean):
    """Weighted losses of rows as the total: (N, ...), (N,) -> Term with (N,), (N,)."""

    def __call__(self, losses: Tensor, weight: Tensor, mass: Tensor | None) -> Term:
        return Term(self.flatten(losses) * weight, weight)


def row_losses(objective: LogitObjective, site: Site) -> Tensor:
    """The loss of each row, summed over classes, times the row's weight in the site: -> (N,).

    They are not divided by a mass, nor multiplied by the weight of the objective. Raises ValueError
    for an objective along the batch, which has a loss for each class instead.
    """
    if objective.relational:
        raise ValueError(
            f"{objective.activation.kind} along the batch has one loss per class, and none per row"
        )
    return replace(objective, reduction=_Unreduced())(site).total
