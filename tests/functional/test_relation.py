"""Relations of the images of a batch, of the channels of an image, and of an image to a memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from references import batchwise, plain
from stillhouse.functional import channels, contrast, relation

Loss = Callable[[Tensor, Tensor], Tensor]
A = torch.tensor([[1, 0], [1, 1], [0, 2]], dtype=torch.double)  # student
B = torch.tensor([[1, 2], [0, 1], [1, 1]], dtype=torch.double)  # teacher

BATCH: dict[str, tuple[Loss, Callable[..., complex], float]] = {
    "distance": (relation.distance_relation, batchwise.rkd_distance, 0.0751219),
    "angle": (relation.angle_relation, batchwise.rkd_angle, 0.1023524),
    "pkt": (relation.probability_relation, batchwise.pkt, 0.0097246),
    "sp": (relation.similarity_relation, batchwise.sp, 0.1739853),
    "cc": (relation.kernel_relation, batchwise.cc, 0.0518893),
    "neighbours": (relation.neighbour_relation, batchwise.cc_neighbours, 0.5),
}
every = pytest.mark.parametrize("name", BATCH)
symmetric = pytest.mark.parametrize("name", [name for name in BATCH if name != "neighbours"])


def rows(n: int = 5, e: int = 3) -> Tensor:
    return torch.randn(n, e, dtype=torch.double)


def two(n: int = 5, e: int = 3) -> tuple[Tensor, Tensor]:
    return rows(n, e).requires_grad_(), rows(n, e)


def rotation(e: int) -> Tensor:
    return torch.linalg.qr(rows(e, e))[0]


@every
def test_the_values_are_those_worked_out_apart(name: str) -> None:
    loss, _, golden = BATCH[name]
    assert float(loss(A, B)) == pytest.approx(golden, abs=2e-7)


@every
def test_value_and_gradient_are_those_of_loops(name: str) -> None:
    loss, loops, _ = BATCH[name]
    student, teacher = two()
    value = loss(student, teacher)
    value.backward()
    want = loops(student.tolist(), teacher.tolist())
    slope = plain.gradient(lambda at: loops(at, teacher.tolist()), student.tolist())
    torch.testing.assert_close(value.item(), want.real)
    torch.testing.assert_close(student.grad, torch.from_numpy(slope))


@every
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    student, teacher = two(4, 2)
    assert torch.autograd.gradcheck(lambda s: BATCH[name][0](s, teacher), student)


@symmetric
def test_networks_of_any_width_compare(name: str) -> None:
    loss, loops, _ = BATCH[name]
    student, teacher = rows(4, 2), rows(4, 5)
    want = loops(student.tolist(), teacher.tolist())
    torch.testing.assert_close(loss(student, teacher).item(), want.real)


@every
def test_the_same_features_cost_nothing(name: str) -> None:
    student = rows().requires_grad_()
    loss = BATCH[name][0](student, student.detach())
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert student.grad.abs().max() < 1e-7  # the epsilon of pkt


@symmetric
def test_the_order_of_images_says_nothing(name: str) -> None:
    loss, order = BATCH[name][0], torch.randperm(6)
    student, teacher = rows(6), rows(6)
    torch.testing.assert_close(loss(student[order], teacher[order]), loss(student, teacher))


def test_neighbours_depend_on_the_order_of_images() -> None:
    turned = [0, 2, 1]
    assert relation.neighbour_relation(A[turned], B[turned]) != relation.neighbour_relation(A, B)


@pytest.mark.parametrize("name", ["distance", "angle"])
def test_shifting_turning_and_scaling_features_says_nothing_of_distances(name: str) -> None:
    loss, student, teacher = BATCH[name][0], rows(), rows()
    moved = 7 * student @ rotation(3) + 5
    torch.testing.assert_close(loss(moved, teacher), loss(student, teacher))
    torch.testing.assert_close(loss(student, moved), torch.zeros((), dtype=torch.double))


@pytest.mark.parametrize("name", ["pkt", "sp", "cc"])
def test_turning_and_scaling_features_says_nothing_of_angles(name: str) -> None:
    loss, student, teacher = BATCH[name][0], rows(), rows()
    torch.testing.assert_close(loss(7 * student @ rotation(3), teacher), loss(student, teacher))


@every
@pytest.mark.parametrize("n", [0, 1])
def test_less_than_two_images_have_no_relation(name: str, n: int) -> None:
    student, teacher = two(n)
    loss = BATCH[name][0](student, teacher)
    loss.backward()
    assert loss == 0
    assert student.grad.shape == student.shape
    assert not student.grad.any()


DEGENERATE = {
    "all zero": torch.zeros(4, 3),
    "all alike": torch.ones(4, 3),
    "two alike": torch.tensor([[1.0, 2, 3], [1, 2, 3], [3, 1, 0], [0, 0, 0]]),
    "huge": 1e6 * torch.eye(4, 3),
}


@every
@pytest.mark.parametrize("kind", DEGENERATE)
@pytest.mark.parametrize("side", ["student", "teacher", "both"])
def test_degenerate_features_give_finite_values_and_gradients(
    name: str, kind: str, side: str
) -> None:
    torch.manual_seed(0)
    plain = torch.randn(4, 3)
    student = (plain if side == "teacher" else DEGENERATE[kind]).clone().requires_grad_()
    teacher = plain if side == "student" else DEGENERATE[kind]
    loss = BATCH[name][0](student, teacher)
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()
    assert student.grad.abs().max() < 1e7  # and no division by an epsilon comes back


@pytest.mark.parametrize("order", [1, 2, 6])
def test_the_series_of_the_kernel_nears_the_kernel(order: int) -> None:
    directions = torch.nn.functional.normalize(rows(4), dim=1)
    exact = (-0.4 * torch.cdist(directions, directions).square()).exp()
    error = (relation.gaussian_kernel(directions, 0.4, order) - exact).abs().max()
    assert error <= 0.8 ** (order + 1) / math.factorial(order + 1)  # the rest of the series
    want = [z.real for z in batchwise.kernels(directions.tolist(), 0.4, order)]
    torch.testing.assert_close(
        relation.gaussian_kernel(3 * directions, 0.4, order).flatten().tolist(), want
    )


@pytest.mark.parametrize("loss", [relation.distance_relation, relation.similarity_relation])
def test_single_precision_is_near_double(loss: Loss) -> None:
    """Of features with a large part in common too, as there are behind a ReLU."""
    student, teacher = rows(16, 32) + 10, rows(16, 32) + 10
    torch.testing.assert_close(
        loss(student.float(), teacher.float()).double(), loss(student, teacher), rtol=1e-4, atol=0
    )


# ----------------------------------------------------------------------------- channels of an image


def maps(n: int, c: int, e: int = 4) -> Tensor:
    return torch.randn(n, c, e, dtype=torch.double)


def test_selectivity_is_that_of_loops() -> None:
    student, teacher = maps(3, 2).requires_grad_(), maps(3, 5)
    losses = channels.selectivity(student, teacher)
    losses.sum().backward()
    for n, loss in enumerate(losses):
        other = teacher[n].tolist()
        assert loss.item() == pytest.approx(batchwise.nst(student[n].tolist(), other).real)
        slope = plain.gradient(partial(batchwise.nst, teacher=other), student[n].tolist())
        torch.testing.assert_close(student.grad[n], torch.from_numpy(slope))


def test_selectivity_sees_neither_the_size_nor_the_sign_nor_the_order_of_channels() -> None:
    student, teacher = maps(2, 3), maps(2, 4)
    turned = student[:, [2, 0, 1]] * torch.tensor([[[2.0], [-1.0], [0.1]]])
    torch.testing.assert_close(
        channels.selectivity(turned, teacher), channels.selectivity(student, teacher)
    )
    assert channels.selectivity(turned, student).abs().max() < 1e-12


def test_flow_is_that_of_loops() -> None:
    first, second = maps(2, 3), maps(2, 2)
    for n, found in enumerate(channels.fsp_matrix(first, second)):
        want = [z.real for z in batchwise.flow(first[n].tolist(), second[n].tolist())]
        torch.testing.assert_close(found.flatten().tolist(), want)


def test_channels_without_anything_in_them_have_a_gradient_of_zero() -> None:
    student = torch.zeros(2, 3, 4, requires_grad=True)
    loss = channels.selectivity(student, torch.randn(2, 3, 4)).sum()
    loss.backward()
    assert loss.isfinite()
    assert not student.grad.any()


def test_planes_have_their_places_last() -> None:
    image = torch.arange(24.0).view(1, 2, 3, 4)
    tokens = torch.arange(24.0).view(1, 12, 2)
    assert channels.channel_rows(image)[0, 1].tolist() == list(range(12, 24))
    assert channels.channel_rows(tokens)[0, 1].tolist() == list(range(1, 24, 2))


# --------------------------------------------------------------------------------- against a memory


def test_contrast_is_that_of_loops() -> None:
    memory, anchor = rows(7), rows(2).requires_grad_()
    drawn, tau, scale = torch.tensor([[0, 3, 3, 6], [5, 1, 2, 4]]), 0.3, 11.0
    scores = (anchor @ memory.mT).gather(1, drawn) / tau
    losses = contrast.noise_contrastive_loss(scores, torch.tensor(scale).double().log(), 7)
    losses.sum().backward()
    for n, loss in enumerate(losses):
        loops = partial(
            batchwise.crd, memory=memory.tolist(), drawn=drawn[n].tolist(), tau=tau, scale=scale
        )
        torch.testing.assert_close(loss.item(), loops(anchor[n].tolist()).real)
        slope = plain.gradient(loops, anchor[n].tolist())
        torch.testing.assert_close(anchor.grad[n], torch.from_numpy(slope))


def test_contrast_survives_temperatures_whose_powers_do_not_fit() -> None:
    scores = torch.tensor([[1000.0, -1000.0, 1000.0]], requires_grad=True)
    loss = contrast.noise_contrastive_loss(scores, torch.tensor(1000.0), 10)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert scores.grad.isfinite().all()


def test_other_classes_are_each_drawn_alike_and_the_own_never() -> None:
    """Classes of 2, 3 and 1 samples: every large number in turn reaches every place once."""
    count = torch.tensor([2, 3, 1])
    first = count.cumsum(0) - count
    draws = torch.arange(12).expand(3, 12)
    places = contrast.sample_other_class(draws, torch.tensor([0, 1, 2]), first, count)
    for own, want in enumerate([[2, 3, 4, 5], [0, 1, 5], [0, 1, 2, 3, 4]]):
        found = places[own].tolist()
        assert sorted(set(found)) == want
        turns = len(found) // len(want)
        assert found[: turns * len(want)] == want * turns
