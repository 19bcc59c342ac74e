"""Losses that are computed in chunks of rows against their references: value, gradient, memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import dense_losses
from references import plain
from stillhouse.functional.divergence import softmax_kl, sum_of_classes
from stillhouse.functional.focal import background_of_rows
from stillhouse.kernels import binary_rows, focal, rows, softmax_rows
from stillhouse.kernels.dispatch import reference_only
from stillhouse.objectives.activation import Sigmoid
from stillhouse.objectives.distance import CrossEntropy
from stillhouse.objectives.logit import LogitObjective
from stillhouse.objectives.preprocess import Scale
from stillhouse.objectives.weighting import Disagreement
from stillhouse.types import Site

WEIGHTINGS: dict[str, dict[str, Any]] = {
    "equal": {},
    "linear": {"beta": 1.0},
    "square": {"beta": 2.0},
    "fraction": {"beta": 1.7},
    "constant": {"beta": 1.0, "detach": True},
}
CASES = {
    f"{kind}-{name}": (sum_of_classes, {"entropy": kind == "ce"} | options)
    for kind in ("ce", "kl")
    for name, options in WEIGHTINGS.items()
} | {"softmax": (softmax_kl, {})}
case = pytest.mark.parametrize(("function", "words"), CASES.values(), ids=CASES)
Function = Callable[..., Tensor]


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of few rows, so that small tensors have several and the last one is shorter."""
    monkeypatch.setitem(rows.ELEMENTS_OF_A_CHUNK, "cpu", 40)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def judge(function: Function, student: Tensor, *others: Any, upstream: Tensor, **words: Any):
    leaf = student.clone().requires_grad_()
    losses = function(leaf, *others, **words)
    return losses.detach(), torch.autograd.grad(losses, leaf, upstream.to(losses.dtype))[0]


def judge_reference(function: Function, *args: Any, **words: Any) -> tuple[Tensor, Tensor]:
    with reference_only():
        return judge(function, *args, **words)


def close(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...], tolerance: float) -> None:
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.double(), other.double(), rtol=tolerance, atol=tolerance)


@case
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (17, 1), (0, 4), (5, 33, 2), (2, 99)])
def test_it_equals_the_reference(function: Any, words: dict[str, Any], shape: Any) -> None:
    student, teacher = 3 * draw(*shape), 3 * draw(*shape, seed=1)
    upstream = draw(*shape[:-1], seed=2)
    temperatures: list[Any] = [1.0]
    if not words.get("beta"):
        per_row = draw(*shape[:-1], 1, seed=3).exp()
        temperatures += [0.5, 4, torch.tensor(2.5).double(), per_row]
    for tau in temperatures:
        fast = function.pick(student, teacher, tau, **words)
        assert fast in (binary_rows.sum_of_classes, softmax_rows.softmax_kl)
        at = student, teacher, tau
        found = judge(function, *at, upstream=upstream, **words)
        assert found[0].shape == shape[:-1]
        close(found, judge_reference(function, *at, upstream=upstream, **words), 1e-12)


@case
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float, 5e-6), (torch.bfloat16, 5e-2), (torch.half, 5e-3)]
)
def test_it_computes_in_single_precision(
    function: Any, words: dict[str, Any], dtype: torch.dtype, tolerance: float
) -> None:
    student, teacher = ((3 * draw(9, 5, seed=seed)).to(dtype) for seed in (0, 1))
    upstream = draw(9, seed=2)
    found = judge(function, student, teacher, upstream=upstream, **words)
    assert (found[0].dtype, found[1].dtype) == (torch.float, dtype)
    wide = (student.double(), teacher.double())
    wanted = judge_reference(function, *wide, upstream=upstream, **words)
    close(found[:1], wanted[:1], 5e-6)
    close(found[1:], wanted[1:], tolerance)


def test_weighted_classes_by_a_plain_loop() -> None:
    student, teacher = draw(4, 3), draw(4, 3, seed=1)

    def total(z: Any) -> complex:
        whole: complex = 0
        for row, other in zip(z, teacher.tolist(), strict=True):
            for a, b in zip(row, other, strict=True):
                p, q = plain.sigmoid(a), plain.sigmoid(b)
                whole += plain.size(p - q) ** 1.5 * plain.cross_entropy((q, 1 - q), (p, 1 - p))
        return whole

    losses, slope = judge(
        sum_of_classes, student, teacher, upstream=torch.ones(4), entropy=True, beta=1.5
    )
    assert losses.sum().item() == pytest.approx(total(student.tolist()).real, rel=1e-12)
    want = torch.from_numpy(plain.gradient(total, student.tolist()))
    torch.testing.assert_close(slope, want, rtol=1e-10, atol=1e-12)


@case
def test_it_is_exact_at_extremes(function: Any, words: dict[str, Any]) -> None:
    z = torch.tensor([0.0, 1, 17, -17, 21, 60, -60, 1e4, -1e4])
    student, teacher = z.repeat(9)[:, None], z.repeat_interleave(9)[:, None]
    if function is softmax_kl:  # of two classes, whose logits are apart by as much
        student, teacher = (torch.cat((x, torch.zeros_like(x)), 1) for x in (student, teacher))
    upstream = torch.ones(81)
    found = judge(function, student, teacher, upstream=upstream, **words)
    wide = (student.double(), teacher.double())
    wanted = judge_reference(function, *wide, upstream=upstream, **words)
    assert all(part.isfinite().all() for part in found)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=2e-6, atol=4e-6)


@pytest.mark.parametrize("words", [WEIGHTINGS["equal"], WEIGHTINGS["linear"]])
@pytest.mark.parametrize("entropy", [False, True])
def test_small_probabilities_are_precise(words: dict[str, Any], entropy: bool) -> None:
    """The losses of background, which a detector sums over a hundred thousand anchors."""
    student, teacher = -12 + draw(50, 1).float(), -12 + draw(50, 1, seed=1).float()
    words, upstream = words | {"entropy": entropy}, torch.ones(50)
    found = judge(sum_of_classes, student, teacher, upstream=upstream, **words)
    wide = student.double(), teacher.double()
    wanted = judge_reference(sum_of_classes, *wide, upstream=upstream, **words)
    for one, other in zip(found, wanted, strict=True):
        assert other.abs().max() < 2e-3
        torch.testing.assert_close(
            one.double(), other, rtol=1e-5, atol=1e-5 * other.abs().max().item()
        )


@case
def test_equal_logits_have_no_slope(function: Any, words: dict[str, Any]) -> None:
    logits = 5 * draw(8, 6).float()
    losses, slope = judge(function, logits, logits, upstream=torch.ones(8), **words)
    assert slope.eq(0).all()
    assert losses.eq(0).all() or (words.get("entropy") and not words.get("beta"))


def test_a_power_below_one_has_no_slope_where_both_agree() -> None:
    logits = draw(3, 4)
    losses, slope = judge(sum_of_classes, logits, logits, upstream=torch.ones(3), beta=0.5)
    assert losses.eq(0).all() and slope.eq(0).all()


@case
def test_masked_classes_count_nothing(function: Any, words: dict[str, Any]) -> None:
    student, teacher = draw(6, 4).float(), draw(6, 4, seed=1).float()
    masked = [torch.cat((x, torch.full((6, 2), -math.inf)), 1) for x in (student, teacher)]
    upstream = draw(6, seed=2)
    losses, slope = judge(function, student, teacher, upstream=upstream, **words)
    more, wider = judge(function, *masked, upstream=upstream, **words)
    torch.testing.assert_close(more, losses)
    torch.testing.assert_close(wider[:, :4], slope)
    assert wider[:, 4:].eq(0).all()


@case
@pytest.mark.parametrize("whose", [0, 1])
def test_a_nan_is_seen_in_its_row(function: Any, words: dict[str, Any], whose: int) -> None:
    pair = [draw(12, 9).float(), draw(12, 9, seed=1).float()]
    pair[whose][7, 3] = math.nan
    losses, slope = judge(function, *pair, upstream=torch.ones(12), **words)
    assert losses.isnan().nonzero().flatten().tolist() == [7]
    assert slope[7].isnan().any()
    assert slope.isnan().any(1).sum() == 1


@case
def test_rows_of_weight_zero_with_infinite_logits(function: Any, words: dict[str, Any]) -> None:
    student, teacher = draw(3, 4).float(), draw(3, 4, seed=1).float()
    student[1, 2] = -math.inf
    weight = torch.tensor([1.0, 0.0, 1.0])
    losses, slope = judge(function, student, teacher, upstream=weight, **words)
    assert slope[1].eq(0).all()
    assert (losses * weight)[1] == 0


@case
def test_a_graph_that_is_kept_gives_the_same_gradient_again(
    function: Any, words: dict[str, Any]
) -> None:
    student, teacher = draw(9, 5).requires_grad_(), draw(9, 5, seed=1)
    losses = function(student, teacher, **words)
    first, second = (draw(9, seed=seed) for seed in (2, 3))
    ours = [
        torch.autograd.grad(losses, student, up, retain_graph=True)[0]
        for up in (first, second, first)
    ]
    with reference_only():
        theirs = function(student, teacher, **words)
    (want,) = torch.autograd.grad(theirs, student, second)
    torch.testing.assert_close(ours[1], want, rtol=1e-12, atol=1e-12)
    assert torch.equal(ours[0], ours[2])


@case
def test_the_gradient_is_right_by_finite_differences(function: Any, words: dict[str, Any]) -> None:
    if words.get("detach"):
        return  # the value changes with the weight, the gradient does not
    student, teacher = draw(4, 3).requires_grad_(), draw(4, 3, seed=1)
    assert torch.autograd.gradcheck(lambda s: function(s, teacher, **words), student)


def test_what_it_cannot_do_the_reference_does() -> None:
    logits, learnt = torch.zeros(3, 2), torch.zeros(3, 2, requires_grad=True)
    tau = torch.ones(3, 1)
    for function in (sum_of_classes, softmax_kl):
        pick = function.pick
        assert pick(learnt, logits, tau) is not function.reference
        assert pick(logits, learnt) is function.reference
        assert pick(learnt, logits, tau.clone().requires_grad_()) is function.reference
        assert pick(learnt, logits, torch.ones(2)) is function.reference  # one for each class
        assert pick(learnt[0], logits[0]) is function.reference
    assert sum_of_classes.pick(learnt, logits, 2.0, beta=1.0) is sum_of_classes.reference
    assert sum_of_classes.pick(learnt, logits, tau, beta=1.0) is sum_of_classes.reference
    assert sum_of_classes.pick(learnt, logits, 1, beta=1.0) is binary_rows.sum_of_classes


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 2.5])
@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (5, 33, 2), (3, 41)])
def test_backgrounds_of_rows_equal_the_reference(gamma: float, shape: tuple[int, ...]) -> None:
    logits, last = 4 * draw(*shape), shape[-1]
    labels = (draw(*shape[:-1], seed=1) * last).long().clamp(-1, last - 1)
    upstream = draw(*shape[:-1], seed=2), draw(*shape[:-1], seed=3)
    found = []
    for context in (nullcontext, reference_only):
        leaf = logits.clone().requires_grad_()
        with context():
            both = background_of_rows(leaf, labels, gamma)
        found.append((*(x.detach() for x in both), *torch.autograd.grad(both, leaf, upstream)))
    assert background_of_rows.pick(logits, labels, gamma) is focal.background_of_rows
    close(*found, 1e-12)


@pytest.mark.parametrize("preprocess", ["no", "yes"])
def test_disagreement_is_that_of_the_logits_before_they_are_scaled(preprocess: str) -> None:
    student, teacher = draw(5, 3), draw(5, 3, seed=1)
    scale = 0.6 if preprocess == "yes" else 1.0
    objective = LogitObjective(
        activation=Sigmoid(),
        distance=CrossEntropy(),
        weighting=Disagreement(),
        **({"preprocess": Scale(scale)} if preprocess == "yes" else {}),
    )
    p, q = (scale * student).sigmoid(), (scale * teacher).sigmoid()
    losses = -q * p.log() - (1 - q) * (1 - p).log()
    want = ((teacher.sigmoid() - student.sigmoid()).abs() * losses).sum(1).mean()
    torch.testing.assert_close(objective(Site(student, teacher)).mean(), want)


# ------------------------------------------------------------------------------------------- memory

SHAPE = (4096, 80)


@pytest.mark.parametrize("name", ["tld", "mld", "bcd", "kd", "focal"])
def test_forward_and_backward_keep_one_copy(name: str) -> None:
    rows.ELEMENTS_OF_A_CHUNK["cpu"] = 2**12
    pair, at = dense_losses.PAIRS[name], dense_losses.logits(SHAPE)
    assert 1 <= dense_losses.copies(pair.ours, *at) < 1.4
    assert dense_losses.copies(pair.plain, *at) >= 3  # what counts does count


@pytest.mark.parametrize("name", ["tld", "mld", "bcd", "kd", "focal"])
def test_without_a_gradient_nothing_of_the_size_of_the_logits_is_made(name: str) -> None:
    rows.ELEMENTS_OF_A_CHUNK["cpu"] = 2**12
    student, teacher = dense_losses.logits(SHAPE)
    loss = partial(dense_losses.PAIRS[name].ours, student.detach(), teacher)
    assert 0 < dense_losses.peak_bytes(loss) < 0.4 * student.numel() * student.element_size()
