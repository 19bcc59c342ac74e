"""What every legal point of the product space owes. A new stage is under these tests at once.

Points are found from the unions. A test goes through all of them and names those that fail.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import asdict, replace
from functools import cache
from itertools import combinations
from typing import Any

import pytest
import torch
from points import (
    crossed_points,
    every_crossed_point,
    every_plain_point,
    every_point,
    named,
    plain_points,
    points,
    say,
    stages,
)
from pydantic import TypeAdapter
from torch import Tensor

from cases import check_each
from references import space as formula
from stillhouse.objectives.activation import Softmax
from stillhouse.objectives.logit import LogitObjective
from stillhouse.types import Site, Term

pytestmark = pytest.mark.filterwarnings("ignore:standardize makes each class depend")
RECIPE = TypeAdapter(LogitObjective)
OBJECTS = 3.0
SOME = torch.tensor([1.0, 0.5, 0.0, 2.0, 0.0], dtype=torch.double)
EYE = torch.eye(3, 4)

# What there is, by what the legality rules ask of it. A stage that is added is entered here.
PREPROCESSES = {"identity", "standardize_0", "standardize_1", "scale", "label_temperature"}
ONE_LOSS_A_ROW = {"softmax", "target_vs_rest", "rest_softmax", "partial_softmax"}
ONE_LOSS_A_CLASS = {"sigmoid"}
ALONG_ROWS = {"probabilities_row", "rest_probabilities", "responses_row", "raw_row"}
ALONG_BATCH = {"probabilities_batch", "responses_batch", "raw_batch"}
OVER_BATCH = {"sample_softmax"}
DIVERGENCES = {"kl", "reverse_kl", "cross_entropy", "jensen_shannon"}
METRICS = {"pearson_clamp", "pearson_add", "cosine_clamp", "cosine_add", "mse", "dice"}
ROW_WEIGHTS = {"uniform", "teacher_confidence", "power_sum"}
CLASS_WEIGHTS = {"disagreement_False", "disagreement_True"}
OF_ROWS = {"mean_sum", "mean_mean", "total_sum", "total_mean"}
OF_OBJECTS = {"per_object_sum", "per_object_mean"}


def make(n: int = 5, c: int = 4, dtype: torch.dtype = torch.double, weighted: bool = False) -> Site:
    """Rows of every class, at the same numbers in every test."""
    student, teacher, weight = numbers(n, c)
    return site(student.to(dtype), teacher.to(dtype), weight=weight if weighted else None)


@cache
def numbers(n: int, c: int) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(n * 100 + c)
    student, teacher = 2 * torch.randn(2, n, c, dtype=torch.double, generator=draw)
    return student, teacher, torch.rand(n, dtype=torch.double, generator=draw) + 0.2


def site(
    student: Tensor, teacher: Tensor, target: Tensor | None = None, weight: Tensor | None = None
) -> Site:
    """A fresh leaf each time, so that gradients are its own."""
    target = torch.arange(len(student)) % student.shape[1] if target is None else target
    leaf = student.detach().clone().requires_grad_()
    return Site(leaf, teacher.detach(), target, weight, torch.tensor(OBJECTS, dtype=student.dtype))


def judge(point: LogitObjective, at: Site) -> tuple[Term, Tensor]:
    """What a point says of a site, and the gradient of the sum."""
    term = point(at)
    (slope,) = torch.autograd.grad(term.total, at.student)
    return Term(term.total.detach(), term.mass, term.weight), slope


@cache
def known(point: LogitObjective) -> tuple[Term, Tensor]:
    """What a point says of the plain site, which several tests hold something against."""
    return judge(point, make())


def close(got: Tensor, want: Tensor | float, rtol: float = 1e-9, atol: float = 1e-12) -> None:
    want = torch.as_tensor(want, dtype=got.dtype)
    if not torch.allclose(got, want, rtol, atol):  # which is quick, and says nothing
        torch.testing.assert_close(got, want.expand_as(got), rtol=rtol, atol=atol)


def assert_finite(point: LogitObjective, at: Site) -> None:
    term, slope = judge(point, at)
    assert term.total.isfinite()
    assert slope.isfinite().all()


def smooth(point: LogitObjective) -> bool:
    """Whether the gradient is that of the value; a detached weight makes it another one."""
    return not getattr(point.weighting, "detach", False)


# ------------------------------------------------------------------------------- the space is whole


def test_no_stage_has_vanished() -> None:
    assert {say(stage) for stage in stages("preprocess")} == PREPROCESSES
    assert {say(stage) for stage in stages("activation")} == (
        ONE_LOSS_A_ROW | ONE_LOSS_A_CLASS | ALONG_ROWS | ALONG_BATCH | OVER_BATCH
    )
    assert {say(stage) for stage in stages("distance")} == DIVERGENCES | METRICS
    assert {say(stage) for stage in stages("weighting")} == ROW_WEIGHTS | CLASS_WEIGHTS
    assert {say(stage) for stage in stages("reduction")} == OF_ROWS | OF_OBJECTS


def test_the_points_are_those_that_the_rules_allow() -> None:
    """Like meets like; classes are weighed where they are apart; a relation has no rows."""
    reductions = len(OF_ROWS | OF_OBJECTS)
    weighed_rows = len(ROW_WEIGHTS) * reductions
    weighed_classes = len(ROW_WEIGHTS | CLASS_WEIGHTS) * reductions
    divergences = len(DIVERGENCES) * (
        len(ONE_LOSS_A_ROW) * weighed_rows + len(ONE_LOSS_A_CLASS) * weighed_classes
    )
    # cross-entropy would keep an entropy that grows with the batch
    over = len(OVER_BATCH) * (len(DIVERGENCES) - 1) * len(OF_ROWS)
    metrics = len(METRICS) * (len(ALONG_ROWS) * weighed_rows + len(ALONG_BATCH) * len(OF_ROWS))
    assert len(points()) == len(PREPROCESSES) * (divergences + metrics + over) == 4620


def test_no_point_is_found_twice() -> None:
    assert len(set(points())) == len(named(points)) == len(points())


def test_any_two_axes_meet_in_every_way() -> None:
    """The points that pay for a backward leave out no pair of stages that there is."""
    axes = ("activation", "distance", "preprocess", "weighting", "reduction")

    def pairs(all_points: Iterable[LogitObjective]) -> set[Any]:
        return {
            (one, getattr(point, one), other, getattr(point, other))
            for point in all_points
            for one, other in combinations(axes, 2)
        }

    assert pairs(crossed_points()) == pairs(points())
    assert set(plain_points()) < set(crossed_points())
    assert len(crossed_points()) == 2 * len(plain_points()) == 1610


# --------------------------------------------------------------------------------------- the values


@every_point
def test_the_value_is_that_of_the_formula(point: LogitObjective) -> None:
    at = make(weighted=True)
    total, mass = formula.value(
        point,
        at.student.tolist(),
        at.teacher.tolist(),
        at.target.tolist(),
        at.weight.tolist(),
        OBJECTS,
    )
    term = point(at)
    close(term.total.detach(), total.real)
    close(term.mass, mass)


@every_crossed_point
def test_there_is_nothing_to_learn_from_oneself(point: LogitObjective) -> None:
    other = make().teacher
    term, slope = judge(point, site(other, other))
    rest, swallowed = 0.0, 1e-12
    if not point.distance.proper:
        labels = (torch.arange(len(other)) % other.shape[1]).tolist()
        rest = formula.least(point, other.tolist(), labels, [1.0] * len(other)).real
    if getattr(point.distance, "mode", "") == "add":  # an eps in the denominator is never quite 0
        swallowed = 1e-5
    close(term.total, rest, atol=swallowed)
    close(slope, 0.0, atol=swallowed)


@every_crossed_point
def test_there_is_something_to_learn_from_another(point: LogitObjective) -> None:
    term, slope = known(point)
    assert term.total > 0
    assert term.mass > 0
    assert slope.isfinite().all()
    assert slope.norm() > 1e-4


@every_plain_point
def test_the_weight_and_the_squared_temperature_multiply(point: LogitObjective) -> None:
    at, tau = make(), point.activation.temperature
    bare = replace(point, kappa="none")(at).total
    close(replace(point, kappa="square", weight=3.0)(at).total, tau**2 * bare)
    assert replace(point, weight=3.0)(at).weight == 3.0


@every_plain_point
def test_a_temperature_of_the_call_takes_the_place_of_the_stage_s_own(
    point: LogitObjective,
) -> None:
    at = make()
    hotter = replace(point, activation=replace(point.activation, temperature=2.5))
    close(point(at, temperature=torch.tensor(2.5)).total, hotter(at).total)


# ------------------------------------------------------------------------------------- the extremes


@cache
def extreme(c: int, n: int = 24) -> Site:
    """Logits that saturate everything, and rows and columns without any spread."""
    levels = torch.tensor([0.0, 20.0, -20.0, 60.0, -60.0, 1e4, -1e4])
    draw = torch.Generator().manual_seed(c)
    student, teacher = levels[torch.randint(len(levels), (2, n, c), generator=draw)]
    student[:3], teacher[2:5] = 0.0, 20.0  # constant rows: of one, of both, of the other
    student[5], teacher[5] = 1e4, -1e4
    student[:, 0] = 20.0  # and a constant class
    return site(student, teacher)


@every_crossed_point
def test_extreme_logits_stay_finite(point: LogitObjective) -> None:
    assert_finite(point, extreme(5))


@every_crossed_point
def test_one_row_of_two_classes_stays_finite(point: LogitObjective) -> None:
    assert_finite(point, make(n=1, c=2))


def test_one_row_has_no_relation_to_another() -> None:
    relations = {name: point for name, point in named(points).items() if point.relational}
    pairs = len(ALONG_BATCH) * len(METRICS) + len(OVER_BATCH) * (len(DIVERGENCES) - 1)
    assert len(relations) == len(PREPROCESSES) * pairs * len(OF_ROWS)
    only = torch.tensor([0.0, 0.0, 3.0, 0.0, 0.0]).double()

    def check(point: LogitObjective) -> None:
        for at in (make(n=1), replace(make(), weight=only)):
            term, slope = judge(point, at)
            assert term.total == 0
            assert (slope == 0).all()
            assert term.mass == (point.reduction.kind == "total")

    check_each(check, relations.items())


@every_plain_point
def test_few_classes_rows_and_values_stay_finite(point: LogitObjective) -> None:
    flat = torch.zeros(3, 4)
    for at in (extreme(2), make(n=1), make(c=1), site(flat, flat + 1), site(flat, flat - EYE)):
        assert_finite(point, at)


@every_crossed_point
def test_no_rows_give_an_exact_differentiable_zero(point: LogitObjective) -> None:
    at = make(n=0)
    term, slope = judge(point, at)
    assert term.total == 0
    assert term.mean() == 0
    assert slope.shape == at.student.shape


# -------------------------------------------------------------------------------------- row weights


@every_crossed_point
def test_rows_of_weight_zero_are_as_if_absent(point: LogitObjective) -> None:
    at, there = make(), [0, 1, 3]
    rows = at.student[there], at.teacher[there], at.target[there], SOME[there]
    term, slope = judge(point, replace(at, weight=SOME))
    fewer, fewer_slope = judge(point, site(*rows))
    close(term.total, fewer.total)
    close(term.mass, fewer.mass)
    close(slope, torch.zeros_like(slope).index_put((torch.tensor(there),), fewer_slope))


@every_plain_point
def test_rows_that_are_all_of_weight_zero_are_no_rows(point: LogitObjective) -> None:
    at = make()
    term, slope = judge(point, replace(at, weight=torch.zeros(5, dtype=torch.double)))
    assert term.total == 0
    assert term.mass == 0
    assert (slope == 0).all()


@every_plain_point
def test_weights_of_one_are_no_weights(point: LogitObjective) -> None:
    at = make()
    term, slope = known(point)
    same, same_slope = judge(point, replace(at, weight=torch.ones(5, dtype=torch.double)))
    close(same.total, term.total)
    close(same.mass, term.mass)
    close(same_slope, slope)


# ---------------------------------------------------------------------------------------- precision


@every_plain_point
def test_single_precision_is_enough(point: LogitObjective) -> None:
    at = make()
    exact, exact_slope = known(point)
    term, slope = judge(point, site(at.student.float(), at.teacher.float()))
    close(term.total.double(), exact.total, rtol=1e-4)
    assert (slope.double() - exact_slope).norm() < 1e-4 * exact_slope.norm()


@every_plain_point
def test_half_precision_is_raised_first(point: LogitObjective) -> None:
    at = make(dtype=torch.bfloat16)
    term, slope = judge(point, at)
    raised, raised_slope = judge(point, site(at.student.float(), at.teacher.float()))
    assert term.total.dtype == torch.float
    assert torch.equal(term.total, raised.total)
    assert torch.equal(slope, raised_slope.bfloat16())


@every_plain_point
def test_autocast_changes_nothing(point: LogitObjective) -> None:
    at = make(dtype=torch.float)
    term, slope = judge(point, at)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast, cast_slope = judge(point, at)
    assert torch.equal(cast.total, term.total)
    assert torch.equal(cast_slope, slope)


class Mixed(Softmax):
    """A stage of somebody else's, with an operation that autocast would take in half precision."""

    def __call__(self, logits: Tensor, *rest: Any) -> Tensor:
        return super().__call__(logits @ torch.eye(logits.shape[1]), *rest)


def test_autocast_changes_nothing_inside_a_stage_either() -> None:
    at, point = make(dtype=torch.float), LogitObjective(activation=Mixed())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(point(at).total, LogitObjective(activation=Softmax())(at).total)


# ----------------------------------------------------------------------------------------- gradient


@every_plain_point
def test_the_gradient_is_that_of_the_value(point: LogitObjective) -> None:
    """At generic points: disagreement has a kink where both agree, which is not met here."""
    if not smooth(point):
        return  # held by `test_a_detached_weight_is_a_constant`
    at = make(n=3, weighted=True)

    def total(student: Tensor) -> Tensor:
        return point(replace(at, student=student)).total

    assert torch.autograd.gradcheck(total, at.student, eps=1e-6, atol=1e-6, fast_mode=True)


def test_a_detached_weight_is_a_constant() -> None:
    detached = {n: p for n, p in named(plain_points).items() if not smooth(p)}
    assert len(detached) == len(PREPROCESSES) * len(DIVERGENCES)

    def check(point: LogitObjective) -> None:
        at = make()
        weight = point.weighting(at.student, at.teacher).detach()
        rows = point._compare(at.student, at.teacher, at.target, point.activation.temperature)
        loss = point.activation.temperature**2 * (weight * rows).sum()
        (want,) = torch.autograd.grad(loss, at.student)
        close(judge(point, at)[1], want)

    check_each(check, detached.items())


@every_plain_point
def test_the_teacher_gets_no_gradient(point: LogitObjective) -> None:
    at = make()
    teacher = at.teacher.requires_grad_()
    point(replace(at, teacher=teacher)).total.backward()
    assert at.student.grad is not None
    assert teacher.grad is None


# --------------------------------------------------------------------------------------- symmetries


@every_plain_point
def test_classes_have_no_order(point: LogitObjective) -> None:
    at, order = make(), torch.tensor([2, 0, 3, 1])
    term, slope = known(point)
    moved = site(at.student[:, order], at.teacher[:, order], order.argsort()[at.target])
    moved_term, moved_slope = judge(point, moved)
    close(moved_term.total, term.total)
    close(moved_slope, slope[:, order])


@every_plain_point
def test_rows_have_no_order(point: LogitObjective) -> None:
    at, order = make(weighted=True), torch.tensor([4, 2, 0, 3, 1])
    term, slope = judge(point, at)
    rows = [x[order] for x in (at.student, at.teacher, at.target, at.weight)]
    moved_term, moved_slope = judge(point, site(*rows))
    close(moved_term.total, term.total)
    close(moved_slope, slope[order])


@every_point
def test_a_batch_said_twice_has_the_same_mean_and_twice_the_sum(point: LogitObjective) -> None:
    at = make()
    rows = [torch.cat((x, x)) for x in (at.student, at.teacher, at.target)]
    (once, _), twice = known(point), point(site(*rows))
    swallowed = 1e-6 if getattr(point.distance, "mode", "") == "add" else 1e-12
    times = 1 if point.relational else 2  # rows of a relation are classes, as many as before
    close(twice.total, times * once.total, atol=swallowed)
    if point.reduction.kind == "mean":
        close(twice.mean(), once.mean(), atol=swallowed)


# ------------------------------------------------------------------------------------------ recipes


@every_point
def test_a_recipe_can_say_it(point: LogitObjective) -> None:
    assert RECIPE.validate_python(asdict(point)) == point
    assert RECIPE.validate_json(RECIPE.dump_json(point)) == point


@every_plain_point
def test_only_standardised_sigmoids_warn(point: LogitObjective) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        replace(point, weight=2.0)
    apart = point.activation.kind in ("sigmoid", "responses")
    assert bool(caught) == (apart and point.preprocess.kind == "standardize")
