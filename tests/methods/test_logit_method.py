"""A preset at the sites of a task."""

from __future__ import annotations

import pytest
import torch

from stillhouse.errors import UserError
from stillhouse.methods.logit import Logits
from stillhouse.objectives import presets
from stillhouse.types import Clock
from tiny import lesson, site


def test_every_site_that_is_named_is_taught() -> None:
    sites = {"class": site(), "edge": site(n=3, c=17)}
    terms = Logits(presets.kd(weight=0.7, sites=("class", "edge")))(lesson(sites))
    assert list(terms) == ["class/kd", "edge/kd"]
    for place, at in sites.items():
        term = terms[f"{place}/kd"]
        loss = presets.kd(weight=0.7)(at.student, at.teacher)
        torch.testing.assert_close(term.weight * term.mean(), loss)
        assert term.weight == 0.7


def test_only_the_sites_named_are_taught_and_in_that_order() -> None:
    sites = {name: site() for name in ("class", "edge", "mask")}
    method = Logits(presets.dkd(sites=("mask", "class")))
    assert method.sites == ("mask", "class")
    terms = method(lesson(sites))
    assert list(terms) == ["mask/target", "mask/rest", "class/target", "class/rest"]


def test_where_none_is_named_it_is_that_of_the_classes() -> None:
    sites = {name: site() for name in ("class", "edge", "class@strong")}
    assert list(Logits(presets.kd())(lesson(sites))) == ["class/kd"]
    strong = Logits(presets.kd(sites=("class@strong",)))(lesson(sites))
    assert list(strong) == ["class@strong/kd"]
    at = sites["class@strong"]
    want = presets.kd()(at.student, at.teacher)
    torch.testing.assert_close(strong["class@strong/kd"].mean() * presets.kd().weight, want)


def test_a_site_that_is_not_offered_is_an_error() -> None:
    with pytest.raises(UserError, match="at site 'edge', but these two networks have class"):
        Logits(presets.kd(sites=("edge",)))(lesson({"class": site()}))


def test_rows_without_weight_and_labels_reach_the_objective() -> None:
    weight = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.5, 0.0]).double()
    at = site(weight=weight)
    (target, rest) = Logits(presets.dkd(beta=2.0))(lesson({"class": at})).values()
    loss = presets.dkd(beta=2.0)(at.student, at.teacher, at.target, weight)
    torch.testing.assert_close(target.mean() + 2.0 * rest.mean(), loss)
    assert target.mass == rest.mass == 2.5


@pytest.mark.parametrize(
    ("step", "share"), [(0, 0.25), (9, 0.25), (10, 0.5), (29, 0.75), (30, 1.0), (99, 1.0)]
)
def test_weights_rise_by_the_epoch_and_totals_do_not(step: int, share: float) -> None:
    at = site()
    method = Logits(presets.dkd(alpha=1.0, beta=8.0, warmup=4))
    clock = Clock(step=step, steps=100, steps_per_epoch=10)
    warm, full = (m(lesson({"class": at}, clock=clock)) for m in (method, Logits(presets.dkd())))
    assert warm["class/target"].weight == share
    assert warm["class/rest"].weight == 8 * share
    assert torch.equal(warm["class/rest"].total, full["class/rest"].total)


def test_a_method_says_how_much_labels_count_beside_it_and_whether_it_reads_them() -> None:
    assert Logits(presets.kd()).label_share == 0.1
    assert Logits(presets.kd(label_weight=0.4)).label_share == 0.4
    assert Logits(presets.mld()).label_share == 1.0
    assert not Logits(presets.kd()).needs_labels
    assert Logits(presets.dkd()).needs_labels
    assert Logits(presets.ps()).needs_labels


def test_a_method_of_logits_learns_nothing_and_taps_nothing() -> None:
    method = Logits(presets.dist())
    assert list(method.parameters()) == []
    assert {name: list(group) for name, group in method.groups().items()} == {"method": []}
    assert method.student_taps == method.teacher_taps == ()
