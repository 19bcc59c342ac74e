"""Factors: a paraphraser that learns first, and a student that follows it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from references import hidden
from settings import heard, loss, setting
from stillhouse.engine.optimisers import SGD, AdamW
from stillhouse.methods.factor import FT, Factors
from stillhouse.methods.setting import Setting
from stillhouse.models.adapters import align
from stillhouse.types import Clock

FIRST, LATER = Clock(0, 80, 10), Clock(10, 80, 10)


def built(**options: Any) -> tuple[Setting, Factors]:
    at = setting()
    return at, FT(**options).build(at)


def weights(at: Setting, method: Factors, clock: Clock) -> list[float]:
    terms = method(heard(at, method, clock=clock))
    assert list(terms) == ["last/paraphrase", "last/factor"]
    return [term.weight for term in terms.values()]


def test_the_paraphraser_learns_first_and_the_student_follows() -> None:
    at, method = built()
    assert weights(at, method, FIRST) == weights(at, method, Clock(9, 80, 10)) == [1.0, 0.0]
    assert weights(at, method, LATER) == weights(at, method, Clock(79, 80, 10)) == [0.0, 200.0]
    assert method.share(FIRST) == method.share(LATER) == 1.0
    assert weights(*built(init=3), Clock(29, 80, 10)) == [1.0, 0.0]
    assert weights(*built(init=0), FIRST) == [0.0, 200.0]


def test_what_is_said_again_is_compared_with_the_map() -> None:
    at, method = built()
    lesson = heard(at, method, clock=FIRST)
    terms = method(lesson)
    goal = lesson.teacher.taps["last"]
    want = (method.paraphrasers[0](goal) - goal).square().mean()
    torch.testing.assert_close(terms["last/paraphrase"].mean(), want)
    assert float(terms["last/factor"].total) == 0


@pytest.mark.parametrize("variant", ["paper", "reference"])
def test_factors_are_what_loops_say(variant: str) -> None:
    formulas = {"paper": hidden.factor_transfer, "reference": hidden.attended_factor_transfer}
    at = setting("small", "medium")
    method = FT(variant=variant, pairs=(("stage2", "stage3"),)).build(at)
    lesson = heard(at, method, clock=LATER)
    term = method(lesson)["stage2/factor"]
    ours = method.adapters[0](lesson.student.taps["stage2"])
    theirs = method.paraphrasers[0].encoder(lesson.teacher.taps["stage3"])
    assert (ours.shape, theirs.shape) == ((4, 32, 4, 4), (4, 32, 2, 2))
    pair = (x.double().tolist() for x in align(ours, theirs))
    assert float(term.total.detach()) == pytest.approx(sum(formulas[variant](*pair)).real, rel=1e-4)


@pytest.mark.parametrize(
    "optimiser", [SGD(lr=0.1, weight_decay=0.1), AdamW(lr=0.1, weight_decay=0.1)]
)
def test_nothing_moves_a_paraphraser_once_its_time_is_over(optimiser) -> None:
    """Neither a gradient, nor weight decay, nor the momentum of its last steps."""
    at, method = built()
    steps = optimiser.build(list(method.named_parameters()))

    def learn(clock: Clock) -> tuple[float, float]:
        before = {name: p.detach().clone() for name, p in method.named_parameters()}
        loss(method(heard(at, method, clock=clock))).backward()
        steps.step()
        steps.zero_grad(set_to_none=True)
        now = dict(method.named_parameters())
        moved = {n: float((p - before[n]).detach().abs().sum()) for n, p in now.items()}
        parts = ("paraphrasers", "adapters")
        return tuple(sum(v for k, v in moved.items() if k.startswith(part)) for part in parts)

    for _ in range(2):
        paraphraser, translator = learn(FIRST)
        assert paraphraser > 0
        assert translator == 0
    for _ in range(2):
        paraphraser, translator = learn(LATER)
        assert paraphraser == 0
        assert translator > 0


def test_ranks_are_told_that_a_part_of_it_is_idle() -> None:
    assert built()[1].unused_parameters


def test_the_number_of_factors_is_a_share_of_the_teacher_s_channels() -> None:
    for share, factors in ((0.5, 32), (0.25, 16), (1e-6, 1)):
        method = FT(share_of_width=share).build(setting())
        assert method.paraphrasers[0].encoder(torch.randn(1, 64, 2, 2)).shape[1] == factors


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="`init` must be a number of epochs"):
        FT(init=-0.1)
    with pytest.raises(ValueError, match="`share_of_width` must be positive, got 0"):
        FT(share_of_width=0)
