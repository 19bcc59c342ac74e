"""The loss of each row, against the terms of the objectives and against loops."""

from __future__ import annotations

import math

import pytest
import torch

from stillhouse.objectives.activation import Probabilities, Sigmoid
from stillhouse.objectives.distance import Pearson
from stillhouse.objectives.logit import LogitObjective
from stillhouse.objectives.presets import bcd, dist, dkd, kd, lskd, mse, tld
from stillhouse.objectives.reduction import Total
from stillhouse.objectives.rows import row_losses
from stillhouse.types import Site


def some_site(weighted: bool = True) -> Site:
    random = torch.Generator().manual_seed(3)
    student, teacher = (3 * torch.randn(7, 4, generator=random, dtype=torch.double) for _ in "st")
    target = torch.randint(0, 4, (7,), generator=random)
    weight = torch.tensor([1.0, 0, 0.5, 2, 1, 0, 1]) if weighted else None
    return Site(student, teacher, target, weight, torch.tensor(3.0))


def test_the_loss_of_a_row_is_that_of_its_classes() -> None:
    site = some_site()
    assert site.weight is not None
    found = row_losses(tld(0.5, 7.0).objectives()["tld"], site)
    for row in range(7):
        total = 0.0
        for s, t in zip(site.student[row].tolist(), site.teacher[row].tolist(), strict=True):
            q, p = (1 / (1 + math.exp(-z / 0.5)) for z in (s, t))
            total -= p * math.log(q) + (1 - p) * math.log1p(-q)
        assert float(found[row]) == pytest.approx(float(site.weight[row]) * 0.25 * total)


@pytest.mark.parametrize("preset", [kd(4.0), lskd(), dkd(), bcd(), tld(2.0), mse()])
@pytest.mark.parametrize("weighted", [True, False])
def test_rows_add_up_to_the_total_of_the_term(preset: object, weighted: bool) -> None:
    site = some_site(weighted)
    for objective in preset.objectives().values():  # type: ignore[attr-defined]
        found = row_losses(objective, site)
        assert found.shape == (7,)
        term = objective(site)
        torch.testing.assert_close(found.sum(), term.total)
        if weighted:
            assert found[[1, 5]].tolist() == [0.0, 0.0]


def test_the_reduction_and_the_weight_do_not_matter() -> None:
    site = some_site()
    plain = row_losses(LogitObjective(activation=Sigmoid()), site)
    other = LogitObjective(activation=Sigmoid(), reduction=Total("mean"), weight=9.0)
    torch.testing.assert_close(row_losses(other, site), plain)
    assert other.reduction == Total("mean")


def test_an_objective_along_the_batch_has_no_rows() -> None:
    inter, intra = dist().objectives().values()
    assert row_losses(inter, some_site()).shape == (7,)
    with pytest.raises(ValueError, match="probabilities along the batch has one loss per class"):
        row_losses(intra, some_site())
    assert intra.activation == Probabilities(across="batch") and isinstance(intra.distance, Pearson)
