"""Correlations and squared differences in closed form against their references."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import dense_losses
from stillhouse.functional import mse, pearson
from stillhouse.kernels import correlation, rows
from stillhouse.kernels.dispatch import reference_only
from stillhouse.objectives import presets

View = Callable[[Tensor], Tensor]
VIEWS: dict[str, View] = {"rows": lambda x: x, "columns": lambda x: x.mT}
views = pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of few rows, so that small tensors have several and the last one is shorter."""
    monkeypatch.setitem(rows.ELEMENTS_OF_A_CHUNK, "cpu", 40)
    monkeypatch.setattr(correlation, "LEAST", 1)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def judge(function: Callable[..., Tensor], leaf: Tensor, view: View, *others: Tensor | None):
    leaf = leaf.clone().requires_grad_()
    losses = function(view(leaf), *others)
    upstream = draw(*losses.shape, seed=9).to(losses.dtype)
    return losses.detach(), torch.autograd.grad(losses, leaf, upstream)[0]


def judge_both(
    function: Callable[..., Tensor], leaf: Tensor, view: View, *others: Tensor | None
) -> list[tuple[Tensor, Tensor]]:
    """Value and gradient of the stand-in, which must be chosen, and of the reference."""
    assert function.pick(view(leaf), *others) is not function.reference
    found = judge(function, leaf, view, *others)
    with reference_only():
        return [found, judge(function, leaf, view, *others)]


def close(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...], tolerance: float = 1e-12) -> None:
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shape", [(1, 2), (5, 7), (17, 3), (2, 99), (3, 4, 5)])
@pytest.mark.parametrize("function", [mse, pearson], ids=lambda f: f.__name__)
def test_rows_equal_the_reference(function: Callable[..., Tensor], shape: tuple[int, ...]) -> None:
    close(*judge_both(function, draw(*shape), VIEWS["rows"], draw(*shape, seed=1)))


@pytest.mark.parametrize("shape", [(2, 1), (7, 5), (3, 17), (99, 2)])
@pytest.mark.parametrize("kind", ["none", "counts", "zeros and ones", "zeros"])
def test_columns_equal_the_reference(shape: tuple[int, int], kind: str) -> None:
    weight = {
        "none": None,
        "counts": draw(shape[0], seed=2).exp(),
        "zeros and ones": (draw(shape[0], seed=2) > 0).double(),
        "zeros": torch.zeros(shape[0], dtype=torch.double),
    }[kind]
    close(*judge_both(pearson, draw(*shape), VIEWS["columns"], draw(*shape, seed=1).mT, weight))


@views
def test_vectors_without_a_direction(view: View) -> None:
    """Constant, tiny, zero, and equal to the teacher's; of the student, the teacher or both."""
    student, teacher = draw(9, 6), draw(9, 6, seed=1)
    student[0], student[1], teacher[2] = 3.0, 1e-10 * student[1], 0.0
    teacher[3], student[4], teacher[4] = student[3].clone(), 0.0, 0.0
    student[5] = 1e6 + 1e-7 * student[5]
    leaf = view(student).contiguous()
    found, wanted = judge_both(pearson, leaf, view, view(view(teacher).contiguous()))
    close([view(found[1]), found[0]], [view(wanted[1]), wanted[0]], 1e-5)
    assert (view(found[1])[[0, 3, 4, 5]] == 0).all()
    assert found[0][3] == 0


@views
@pytest.mark.parametrize("level", [0.0, 300.0])
def test_single_precision_at_a_high_level(view: View, level: float) -> None:
    student, teacher = draw(400, 300) + level, draw(400, 300, seed=1) + level
    exact = judge(pearson, student, view, view(teacher))
    found = judge(pearson, student.float(), view, view(teacher.float()))
    assert found[0].dtype == torch.float32
    tolerance = 3e-6 if level == 0 else 1e-3
    close([x.double() for x in found], exact, tolerance)


@views
def test_a_graph_that_is_kept_gives_the_same_gradient_again(view: View) -> None:
    leaf, teacher = draw(20, 8).requires_grad_(), draw(20, 8, seed=1)
    losses = pearson(view(leaf), view(teacher))
    first, second = (torch.autograd.grad(losses.sum(), leaf, retain_graph=True)[0] for _ in "12")
    assert torch.equal(first, second) and bool(first.any())


@views
def test_the_gradient_is_right_by_finite_differences(view: View) -> None:
    teacher = view(draw(6, 9, seed=1))
    leaf = draw(6, 9).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: pearson(view(x), teacher), leaf)


def test_what_it_cannot_do_the_reference_does() -> None:
    student, teacher = draw(6, 9), draw(6, 9, seed=1)
    weight = draw(9).exp()
    for others in (
        (teacher.clone().requires_grad_(),),
        (teacher, weight),
        (teacher, None, 1e-8, "add"),
        (teacher.float(),),
        (teacher[:1],),
    ):
        assert pearson.pick(student, *others) is pearson.reference
    assert mse.pick(student.mT, teacher.mT) is mse.reference
    assert mse.pick(student, teacher, weight) is mse.reference
    assert mse.pick(student.bfloat16(), teacher.bfloat16()) is mse.reference


@pytest.mark.parametrize(("preset", "copies"), [(presets.mse(), 1.5), (presets.dist(), 6.5)])
def test_memory_of_dense_losses(
    preset: presets.Preset, copies: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Softmaxes of both networks and the gradient, for each of the two relations."""
    monkeypatch.setitem(rows.ELEMENTS_OF_A_CHUNK, "cpu", 2**10)
    assert dense_losses.copies(preset, *dense_losses.logits((4000, 80))) < copies
