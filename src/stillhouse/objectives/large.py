"""Objectives at a site that is too large to be copied: one sweep over its pieces for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from stillhouse.functional.moments import MOMENTS
from stillhouse.functional.pieces import sum_over_pieces, sums_over_pieces
from stillhouse.objectives.logit import LogitObjective
from stillhouse.types import Pieces, Term, Terms


def compare_pieces(
    objectives: Mapping[str, LogitObjective], pieces: Pieces, over_ranks: Callable[[Tensor], Tensor]
) -> Terms:
    """The terms of the objectives that are sums over rows, or made of such sums.

    `over_ranks` adds tensors of all ranks, for relations. Objectives that are left out need all
    rows at once.
    """
    rows = {n: o.at(pieces) for n, o in objectives.items() if not o.relational}
    columns = {n: o for n, o in objectives.items() if o.relational and o.additive}
    if len(rows) == 1 and not columns:
        ((name, objective),) = rows.items()
        return {name: term_of_total(objective, pieces, sum_rows(objective, pieces))}

    def sums(part: Tensor, number: int) -> Tensor:
        site = pieces.site(part, number)
        totals = [objective(site).total for objective in rows.values()]
        moments = [objective.moments(site) for objective in columns.values()]
        kind = moments[0].dtype if moments else totals[0].dtype
        return torch.cat(
            [total.to(kind).view(1) for total in totals] + [m.flatten() for m in moments]
        )

    if not rows and not columns:
        return {}
    found = sums_over_pieces(sums, pieces.student, pieces.places())
    totals, *moments = found.split([len(rows), *columns_of(found, len(rows), len(columns))])
    made = {
        name: term_of_total(objective, pieces, total)
        for (name, objective), total in zip(rows.items(), totals, strict=True)
    }
    for (name, objective), own in zip(columns.items(), moments, strict=True):
        made[name] = objective.of_moments(over_ranks(own.view(MOMENTS, -1)))
    return made


def sum_rows(objective: LogitObjective, pieces: Pieces) -> Tensor:
    """The total of one objective, whose gradient is made in the same sweep."""

    def total(part: Tensor, number: int) -> Tensor:
        return objective(pieces.site(part, number)).total

    return sum_over_pieces(total, pieces.student, pieces.places())


def term_of_total(objective: LogitObjective, pieces: Pieces, total: Tensor) -> Term:
    """The term of an objective whose total is known."""
    weight = pieces.weights()
    empty = objective.reduction(torch.zeros_like(weight), weight, pieces.mass)
    return empty._replace(total=total.to(weight.dtype), weight=objective.weight)


def columns_of(found: Tensor, before: int, count: int) -> list[int]:
    """The lengths of so many equal parts behind the first entries."""
    return [(len(found) - before) // count] * count if count else []
