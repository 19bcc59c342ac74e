"""Activation boundaries, and the part of the run that is theirs."""

from __future__ import annotations

import pytest
from torch import nn

from references import hidden
from settings import heard, setting
from stillhouse.methods.boundary import AB
from stillhouse.types import Clock


def test_boundaries_count_alone_at_first_and_not_at_all_later() -> None:
    at = setting()
    method = AB().build(at)
    for step in range(80):
        clock = Clock(step, 80, 10)
        terms = method(heard(at, method, clock=clock)) if step in (0, 9, 10, 79) else None
        first = step < 10
        assert method.share(clock) == (0.0 if first else 1.0)
        if terms is not None:
            want = [0.75e-3, 1.5e-3, 3e-3] if first else [0.0] * 3
            assert [term.weight for term in terms.values()] == pytest.approx(want)


def test_the_first_part_may_be_said_in_epochs_and_labels_have_their_own_share() -> None:
    method = AB(init=3, label_weight=0.4).build(setting())
    shares = [method.share(Clock(step, 100, 10)) for step in (0, 29, 30, 99)]
    assert shares == [0.0, 0.0, 0.4, 0.4]
    assert AB(init=0).build(setting()).share(Clock(0, 100, 10)) == 1.0


def test_connectors_have_a_gradient_of_zero_when_their_time_is_over() -> None:
    at = setting()
    method = AB().build(at)
    terms = method(heard(at, method, clock=Clock(50, 80, 10)))
    sum(term.weight * term.mean() for term in terms.values()).backward()
    grads = [p.grad for p in method.parameters()]
    assert grads
    assert all((grad == 0).all() for grad in grads)


def test_a_term_is_what_loops_say_of_maps_before_the_relu() -> None:
    at = setting()
    method = AB(margin=0.7).build(at)
    assert method.student_taps == method.teacher_taps == ("stage1@pre", "stage2@pre", "stage3@pre")
    lesson = heard(at, method)
    for index, term in enumerate(method(lesson).values()):
        student = method.adapters[index](lesson.student.taps[method.student_taps[index]])
        goal = lesson.teacher.taps[method.teacher_taps[index]]
        want = hidden.activation_boundary(student.double().tolist(), goal.double().tolist(), 0.7)
        assert float(term.total.detach()) == pytest.approx(sum(want).real, rel=1e-4)


def test_maps_of_one_shape_need_no_connector() -> None:
    method = AB().build(setting("small", "small"))
    assert all(isinstance(adapter, nn.Identity) for adapter in method.adapters)
    assert list(method.parameters()) == []
    assert {name: list(group) for name, group in method.groups().items()} == {"method": []}


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="`init` must be a number of epochs.*, got -1"):
        AB(init=-1)
    with pytest.raises(ValueError, match="`margin` must be positive, got 0"):
        AB(margin=0)
