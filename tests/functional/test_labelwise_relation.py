"""Distances within groups, against loops, and in the corners where distances have none."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from references import labelwise as loops
from references import plain
from stillhouse.functional.labelwise import (
    NUMBERS,
    GroupPairs,
    group_distance_relation,
    group_pairs,
    pair_distances,
)

A = torch.tensor([[1, 0], [1, 1], [0, 2]], dtype=torch.double)  # student
B = torch.tensor([[1, 2], [0, 1], [1, 1]], dtype=torch.double)  # teacher
GOLDEN = 0.2253656
variants = pytest.mark.parametrize("relative", [True, False], ids=["reference", "paper"])


def rows(n: int, e: int = 3, dtype: torch.dtype = torch.double) -> Tensor:
    return torch.randn(n, e, dtype=dtype)


def listed(found: GroupPairs) -> set[frozenset[int]]:
    both = zip(found.first.tolist(), found.second.tolist(), strict=True)
    return {frozenset(pair) for pair in both}


def apart(student: Any, teacher: Tensor, groups: Tensor, relative: bool) -> complex:
    """The sum over groups in loops, of rows that may be complex numbers."""
    found, numbers = 0j, groups.tolist()
    for number in set(numbers):
        members = [n for n, other in enumerate(numbers) if other == number]
        s, t = ([side[n] for n in members] for side in (student, teacher.tolist()))
        found += loops.group(s, t, paper=not relative)
    return found


# ---------------------------------------------------------------------------------- which pairs


def test_each_two_rows_of_a_group_are_a_pair_once() -> None:
    groups = torch.tensor([7, 2, 7, 5, 2, 7, 7, 9])
    found = group_pairs(groups)
    want = {
        frozenset((i, j)) for i in range(len(groups)) for j in range(i) if groups[i] == groups[j]
    }
    assert listed(found) == want
    assert len(found.first) == len(want) == 1 + 6
    assert torch.equal(groups[found.first], groups[found.second])
    sizes = {7: 4, 2: 2}
    assert found.size.tolist() == [sizes[g] for g in groups[found.first].tolist()]
    # the number of a group is its own, and one that a sum over P places has a place for
    assert len({*zip(found.group.tolist(), groups[found.first].tolist(), strict=True)}) == 2
    assert found.group.max() < len(groups)


def test_groups_that_are_too_small_have_no_pairs() -> None:
    groups = torch.tensor([0, 0, 1, 1, 1, 2])
    assert listed(group_pairs(groups, least=3)) == {frozenset(p) for p in ((2, 3), (2, 4), (3, 4))}
    for few in (groups[:0], groups[:1], torch.arange(5)):
        assert all(len(part) == 0 for part in group_pairs(few))


# --------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("times", [1, 4])
def test_each_group_is_worth_what_was_worked_out_apart(times: int) -> None:
    groups = torch.arange(times).repeat_interleave(3)
    found = group_distance_relation(A.repeat(times, 1), B.repeat(times, 1), group_pairs(groups))
    assert found.item() == pytest.approx(times * GOLDEN, abs=times * 1e-7)


@variants
def test_value_and_gradient_are_those_of_loops(relative: bool) -> None:
    """Groups of 1 to 5 rows in any order, and a teacher that is wider."""
    groups = torch.tensor([0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4])[torch.randperm(15)]
    student, teacher = (3 * rows(15)).requires_grad_(), 3 * rows(15, 7)
    loss = group_distance_relation(student, teacher, group_pairs(groups), relative)
    loss.backward()
    loop = partial(apart, teacher=teacher, groups=groups, relative=relative)
    torch.testing.assert_close(loss.item(), loop(student.tolist()).real)
    slope = plain.gradient(loop, student.tolist())
    torch.testing.assert_close(student.grad, torch.from_numpy(slope))


def test_in_units_of_the_mean_two_rows_say_nothing_and_their_group_may_be_left_out() -> None:
    student, teacher = rows(5).requires_grad_(), rows(5)
    groups = torch.tensor([0, 1, 0, 1, 1])
    every, three = (
        group_distance_relation(student, teacher, group_pairs(groups, n)) for n in (2, 3)
    )
    torch.testing.assert_close(every, three)
    alone = group_distance_relation(student, teacher, group_pairs(groups[:4], least=3))
    alone.backward()
    assert alone == 0
    assert not student.grad.any()


def test_as_they_are_two_rows_say_something() -> None:
    student, teacher = torch.tensor([[0.0], [3.0]]), torch.tensor([[0.0, 0.0], [0.3, 0.4]])
    found = group_distance_relation(
        student, teacher, group_pairs(torch.zeros(2).long()), relative=False
    )
    assert found.item() == pytest.approx(2 * (2.5 - 0.5))


@variants
def test_a_group_counts_as_much_as_its_weight(relative: bool) -> None:
    groups = torch.tensor([1, 0, 1, 1, 0, 0])
    student, teacher = rows(6), rows(6)
    ones, zeros = (
        group_distance_relation(student[own], teacher[own], group_pairs(groups[own]), relative)
        for own in (groups == 1, groups == 0)
    )
    weight = torch.tensor([0.5, 2.0], dtype=torch.double)[groups]
    found = group_distance_relation(student, teacher, group_pairs(groups), relative, weight)
    torch.testing.assert_close(found, 2 * ones + 0.5 * zeros)


@variants
def test_rows_that_are_alone_change_nothing(relative: bool) -> None:
    """However many there are before the groups that have pairs."""
    student, teacher, groups = rows(9), rows(9), torch.tensor([0, 1, 2, 3, 4, 5, 6, 6, 6])
    every = group_distance_relation(student, teacher, group_pairs(groups), relative)
    few = group_distance_relation(student[6:], teacher[6:], group_pairs(groups[6:]), relative)
    torch.testing.assert_close(every, few)


@variants
@pytest.mark.parametrize("n", [0, 1, 4])
def test_where_no_rows_share_a_group_there_is_a_zero_with_a_gradient(
    n: int, relative: bool
) -> None:
    student = rows(n).requires_grad_()
    loss = group_distance_relation(student, rows(n), group_pairs(torch.arange(n)), relative)
    loss.backward()
    assert loss == 0
    assert student.grad.shape == student.shape
    assert not student.grad.any()


@variants
def test_the_same_rows_cost_nothing(relative: bool) -> None:
    student = rows(6).requires_grad_()
    loss = group_distance_relation(student, student.detach(), group_pairs(torch.zeros(6)), relative)
    loss.backward()
    assert loss == 0
    assert student.grad.abs().max() < 1e-12


def test_only_the_reference_is_blind_to_scale() -> None:
    student, teacher = rows(5), rows(5)
    found = group_pairs(torch.zeros(5))
    for relative in (True, False):
        one, other = (
            group_distance_relation(s, teacher, found, relative) for s in (student, 9 * student)
        )
        assert torch.isclose(one, other) == relative


@variants
def test_the_order_of_rows_says_nothing(relative: bool) -> None:
    groups, order = torch.tensor([0, 1, 0, 1, 1, 0, 1]), torch.randperm(7)
    student, teacher = rows(7), rows(7)
    turned = group_distance_relation(
        student[order], teacher[order], group_pairs(groups[order]), relative
    )
    torch.testing.assert_close(
        turned, group_distance_relation(student, teacher, group_pairs(groups), relative)
    )


# ------------------------------------------------------------------------------------ gradients


@variants
def test_gradients_are_those_of_finite_differences(relative: bool) -> None:
    found = group_pairs(torch.tensor([0, 1, 0, 1, 1, 0]))
    student, teacher = rows(6, 2).requires_grad_(), rows(6, 2).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda s, t: group_distance_relation(s, t, found, relative), (student, teacher)
    )
    assert torch.autograd.gradcheck(lambda s: pair_distances(s, found, numbers=4), student)


@pytest.mark.parametrize("numbers", [1, 7, 24, 10**6])
def test_how_many_pairs_go_at_a_time_changes_nothing(numbers: int) -> None:
    groups = torch.randint(3, (20,))
    found, slope = group_pairs(groups), None
    student = rows(20, 4, torch.float32).requires_grad_()
    plainly = (student[found.first] - student[found.second]).square().sum(1).clamp(min=1e-12).sqrt()
    parts = pair_distances(student, found, numbers=numbers)
    torch.testing.assert_close(parts, plainly)
    weight = torch.randn(len(parts))
    slope, want = (torch.autograd.grad(x, student, weight)[0] for x in (parts, plainly))
    torch.testing.assert_close(slope, want, rtol=1e-5, atol=1e-5)


class Largest(TorchDispatchMode):
    """How many numbers the largest tensor has that anything gives."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if isinstance(found, Tensor):
            self.numbers = max(self.numbers, found.numel())
        return found


def test_differences_of_all_pairs_are_never_there_at_once() -> None:
    """Of 500 rows there are 124 750 pairs, whose differences would be 64 times as many numbers."""
    kept: dict[int, int] = {}

    def note(x: Tensor) -> Tensor:
        kept[x.data_ptr()] = x.numel()
        return x

    student = rows(500, 64, torch.float32).requires_grad_()
    teacher, found = rows(500, 64, torch.float32), group_pairs(torch.zeros(500))
    number = len(found.first)
    assert number == 124_750
    with Largest() as largest, saved_tensors_hooks(note, lambda x: x):
        group_distance_relation(student, teacher, found).backward()
    assert student.grad.any()
    assert largest.numbers == max(2 * NUMBERS, 2 * number)
    assert sum(kept.values()) < number * 64 / 4


# ------------------------------------------------------------------------------------- precision

CORNERS = {
    "all zero": torch.zeros(4, 3),
    "all alike": torch.ones(4, 3),
    "two alike": torch.tensor([[1.0, 2, 3], [1, 2, 3], [3, 1, 0], [0, 0, 0]]),
    "huge": 1e6 * torch.eye(4, 3),
    "tiny": 1e-6 * torch.eye(4, 3),
    "far and near": torch.tensor([[1e6, 0, 0], [1e6, 1, 0], [0, 0, 0], [0, 0, 1e-5]]),
}


@variants
@pytest.mark.parametrize("kind", CORNERS)
@pytest.mark.parametrize("side", ["student", "teacher", "both"])
def test_degenerate_rows_give_the_loss_of_loops_and_a_finite_gradient(
    kind: str, side: str, relative: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    usual = torch.randn(4, 3, generator=generator)
    student = (usual if side == "teacher" else CORNERS[kind]).clone().requires_grad_()
    teacher = usual if side == "student" else CORNERS[kind]
    groups = torch.zeros(4)
    loss = group_distance_relation(student, teacher, group_pairs(groups), relative)
    loss.backward()
    want = apart(student.tolist(), teacher, groups, relative)
    assert loss.item() == pytest.approx(want.real, rel=1e-4, abs=1e-6)
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("apart", [0.0, 1e-7])
def test_rows_at_one_place_or_nearly_have_no_gradient(apart: float) -> None:
    student = torch.tensor([[1.0, 2], [1 + apart, 2], [5, 1]]).double().requires_grad_()
    found = pair_distances(student, group_pairs(torch.tensor([0, 0, 1])))
    found.sum().backward()
    assert found.item() == pytest.approx(1e-6)
    assert not student.grad.any()


def test_close_rows_far_from_the_origin_keep_their_distance() -> None:
    """Products of such rows in single precision would say nothing of their distances."""
    close = 1e-3 * rows(6, 8)
    far = (1000 + close).float()
    found = group_pairs(torch.zeros(6))
    want = (far[found.first].double() - far[found.second].double()).norm(dim=1)
    torch.testing.assert_close(pair_distances(far, found).double(), want, rtol=1e-5, atol=0)


@variants
def test_half_precision_is_computed_in_single(relative: bool) -> None:
    found = group_pairs(torch.tensor([0, 0, 0, 1, 1, 1, 1]))
    student, teacher = (100 * rows(7, 16, torch.float16) for _ in range(2))
    student.requires_grad_()
    loss = group_distance_relation(student, teacher, found, relative)
    loss.backward()
    assert loss.dtype == torch.float32
    assert student.grad.dtype == torch.float16
    single = group_distance_relation(student.float(), teacher.float(), found, relative)
    assert loss == single


@variants
def test_single_precision_is_near_double(relative: bool) -> None:
    found = group_pairs(torch.randint(4, (40,)))
    student, teacher = rows(40, 64) + 10, rows(40, 64) + 10
    double: Any = group_distance_relation(student, teacher, found, relative)
    single = group_distance_relation(student.float(), teacher.float(), found, relative)
    torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=0)
