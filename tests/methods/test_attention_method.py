"""Attention at all stages."""

from __future__ import annotations

import pytest
import torch

from references import hidden
from settings import changed, heard, setting
from stillhouse.methods.attention import AT
from stillhouse.models.adapters import align


def test_all_stages_of_both_networks_are_compared_with_weight_1000() -> None:
    at = setting()
    method = AT().build(at)
    lesson = heard(at, method)
    terms = method(lesson)
    assert list(terms) == ["stage1", "stage2", "stage3"]
    for name, term in terms.items():
        pair = (t.taps[name].double().tolist() for t in (lesson.student, lesson.teacher))
        want = sum(hidden.attention_transfer(*pair)).real
        assert float(term.total.detach()) == pytest.approx(want, rel=1e-4)
        assert term.weight == 1000.0


def test_the_larger_map_is_pooled_before_it_is_squared() -> None:
    at = setting()
    method = AT(pairs=(("stage1", "stage3"),), power=4).build(at)
    lesson = heard(at, method)
    (term,) = method(lesson).values()
    s, t = align(lesson.student.taps["stage1"], lesson.teacher.taps["stage3"])
    want = hidden.attention_transfer(s.double().tolist(), t.double().tolist(), 4)
    assert float(term.total.detach()) == pytest.approx(sum(want).real, rel=1e-4)


def test_the_scale_and_the_sign_of_a_map_do_not_count() -> None:
    at = setting()
    method = AT().build(at)
    lesson = heard(at, method)
    turned = changed(lesson, {name: -3 * tap for name, tap in lesson.student.taps.items()})
    for one, other in zip(method(lesson).values(), method(turned).values(), strict=True):
        torch.testing.assert_close(one.mean(), other.mean())


def test_a_power_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`power` must be at least 1, got 0\.5"):
        AT(power=0.5)
