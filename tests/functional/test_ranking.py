"""Average precision and F1 against scikit-learn, and three ways to pick classes against loops."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score
from torch import Tensor

from stillhouse.functional import ranking
from stillhouse.functional.ranking import (
    above_half,
    average_precision,
    count_decisions,
    harmonic_f1,
    macro_f1,
    micro_f1,
    oracle_top_k,
    top_k,
)

SCORES = {
    "all apart": lambda n, c: torch.randn(n, c, dtype=torch.double),
    "few values": lambda n, c: torch.randint(-2, 3, (n, c)).float(),
    "half precision": lambda n, c: (6 * torch.randn(n, c)).sigmoid().half(),
    "saturated": lambda n, c: (40 * torch.randn(n, c)).half().sigmoid(),
    "all alike": lambda n, c: torch.full((n, c), 0.25),
}
every_kind = pytest.mark.parametrize("kind", SCORES)


def case(kind: str, n: int = 60, c: int = 9) -> tuple[Tensor, Tensor]:
    """Scores and labels; one class has no positive, one is everywhere, one is there once."""
    scores, labels = SCORES[kind](n, c), torch.rand(n, c) < 0.3
    labels[:, 0], labels[:, 1], labels[:, 2] = False, True, torch.arange(n) == n // 2
    return scores, labels


def same(got: Tensor, want: float | list[float]) -> None:
    np.testing.assert_allclose(got.numpy(), np.array(want, dtype=np.double), rtol=1e-12, atol=0)


# -------------------------------------------------------------------------------- average precision


def scikit(scores: Tensor, labels: Tensor) -> list[float]:
    """Class by class, NaN where scikit-learn warns that there is no positive."""
    found = []
    for theirs, some in zip(labels.T.numpy(), scores.T.double().numpy(), strict=True):
        found.append(average_precision_score(theirs, some) if theirs.any() else math.nan)
    return found


def loop(scores: list[float], labels: list[bool]) -> float:
    """The sum of the definition, threshold by threshold."""
    area = recall = 0.0
    for threshold in sorted(set(scores), reverse=True):
        picked = [y for s, y in zip(scores, labels, strict=True) if s >= threshold]
        area += (sum(picked) / sum(labels) - recall) * sum(picked) / len(picked)
        recall = sum(picked) / sum(labels)
    return area


@every_kind
@pytest.mark.parametrize("n", [1, 2, 60, 501])
def test_average_precision_is_that_of_scikit_learn(kind: str, n: int) -> None:
    scores, labels = case(kind, n)
    got = average_precision(scores, labels)
    assert got.dtype == torch.double
    assert got[0].isnan()
    same(got, scikit(scores, labels))


@every_kind
def test_average_precision_is_the_sum_of_its_definition(kind: str) -> None:
    scores, labels = case(kind, 25)
    want = [loop(s, y) for s, y in zip(scores.T.tolist(), labels.T.tolist(), strict=True) if any(y)]
    same(average_precision(scores, labels)[1:], want)


def test_a_hand_made_ranking() -> None:
    scores = torch.tensor([[0.9], [0.8], [0.7], [0.6]])
    labels = torch.tensor([[1], [0], [1], [0]])
    same(average_precision(scores, labels), [(1 + 2 / 3) / 2])
    same(average_precision(-scores, labels), [(1 / 2 + 2 / 4) / 2])
    same(average_precision(0 * scores, labels), [0.5])


def test_labels_are_there_above_zero_whatever_their_kind() -> None:
    scores, labels = case("few values")
    want = average_precision(scores, labels).tolist()
    for kind in (torch.uint8, torch.int64, torch.float, torch.double):
        same(average_precision(scores, labels.to(kind)), want)


@every_kind
def test_neither_order_nor_scale_matters_to_the_last_bit(kind: str) -> None:
    scores, labels = case(kind)
    order = torch.randperm(len(scores))
    want, got = (
        average_precision(scores, labels),
        average_precision(4 * scores[order], labels[order]),
    )
    assert torch.equal(got[1:], want[1:])
    assert got[0].isnan()


@every_kind
@pytest.mark.parametrize("entries", [1, 61, 130, 10_000])
def test_classes_are_judged_alike_in_chunks_of_any_size(
    kind: str, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores, labels = case(kind)
    want = average_precision(scores, labels).tolist()
    monkeypatch.setattr(ranking, "ENTRIES", entries)
    same(average_precision(scores, labels), want)


@pytest.mark.parametrize(("n", "c"), [(0, 0), (0, 4), (5, 0), (1, 1), (3, 4000)])
def test_any_size_is_allowed(n: int, c: int) -> None:
    scores, labels = torch.randn(n, c), torch.ones(n, c)
    got = average_precision(scores, labels)
    assert got.shape == (c,)
    assert got.isnan().all() if n == 0 else torch.equal(got, torch.ones(c).double())
    for predicted in (above_half(scores), top_k(scores, 3), oracle_top_k(scores, labels)):
        assert predicted.shape == (n, c)
        counts = count_decisions(predicted, labels)
        assert [count.shape for count in counts] == [(c,)] * 3
        assert all(f1(counts).isfinite() for f1 in (micro_f1, macro_f1, harmonic_f1))


def test_no_number_is_the_lowest_score_and_infinity_the_highest() -> None:
    scores, labels = case("all apart")
    broken, mended = scores.clone(), scores.clone()
    for value, place in ((math.nan, -1e9), (-math.inf, -1e9), (math.inf, 1e9)):
        here = torch.rand(scores.shape) < 0.2
        broken[here], mended[here] = value, place
    same(average_precision(broken, labels), scikit(mended, labels))
    assert torch.equal(oracle_top_k(broken, labels), oracle_top_k(mended, labels))
    assert torch.equal(top_k(broken, 3), top_k(mended, 3))
    assert torch.equal(above_half(broken), above_half(mended))
    same(
        average_precision(torch.full((4, 1), math.nan), torch.tensor([[1], [0], [0], [0]])), [0.25]
    )


# ----------------------------------------------------------------------------------------------- F1


def picks(n: int = 50, c: int = 8) -> tuple[Tensor, Tensor]:
    """Predictions and labels; one class is never picked, one never there, one neither."""
    predicted, labels = torch.rand(n, c) < 0.4, torch.rand(n, c) < 0.3
    predicted[:, 0], labels[:, 1] = False, False
    predicted[:, 2], labels[:, 2] = False, False
    return predicted, labels


@pytest.mark.parametrize("n", [1, 7, 200])
def test_f1_is_that_of_scikit_learn(n: int) -> None:
    predicted, labels = picks(n)
    counts, pair = count_decisions(predicted, labels), (labels.numpy(), predicted.numpy())
    options = {"average": "macro", "zero_division": 0}
    same(micro_f1(counts), f1_score(*pair, average="micro", zero_division=0))
    same(macro_f1(counts), f1_score(*pair, **options))
    precision, recall = precision_score(*pair, **options), recall_score(*pair, **options)
    both = precision + recall
    same(harmonic_f1(counts), 2 * precision * recall / both if both else 0.0)


def test_counts_are_those_of_a_loop() -> None:
    predicted, labels = picks()
    want = [[0] * 8 for _ in range(3)]
    for guess, truth in zip(predicted.tolist(), labels.tolist(), strict=True):
        for c, (p, y) in enumerate(zip(guess, truth, strict=True)):
            want[0][c] += p and y
            want[1][c] += p and not y
            want[2][c] += y and not p
    assert [count.tolist() for count in count_decisions(predicted, labels)] == want
    assert [count.tolist() for count in count_decisions(predicted, labels.float())] == want


def test_the_three_f1_are_three_numbers() -> None:
    counts = count_decisions(*picks(200))
    assert len({round(float(f1(counts)), 3) for f1 in (micro_f1, macro_f1, harmonic_f1)}) == 3


def test_nothing_picked_is_zero_and_all_right_is_one() -> None:
    labels = torch.rand(20, 5) < 0.5
    labels[0] = True
    for f1 in (micro_f1, macro_f1, harmonic_f1):
        assert f1(count_decisions(torch.zeros_like(labels), labels)) == 0
        assert f1(count_decisions(labels, labels)) == 1
        assert f1(count_decisions(labels, torch.zeros_like(labels))) == 0


# ----------------------------------------------------------------------------------- what is picked


def oracle(scores: list[float], labels: list[bool]) -> list[bool]:
    """As many as there are labels: what beats the best that is left out."""
    count = sum(labels)
    if count == len(scores):
        return [True] * len(scores)
    border = sorted(scores, reverse=True)[count]
    return [score > border for score in scores]


@every_kind
def test_the_oracle_is_a_loop(kind: str) -> None:
    scores, labels = case(kind, 80, 6)
    labels[:5], labels[5:10] = True, False
    got = oracle_top_k(scores, labels)
    want = [oracle(s, y) for s, y in zip(scores.tolist(), labels.tolist(), strict=True)]
    assert got.tolist() == want
    assert got[:5].all()
    assert not got[5:10].any()
    assert torch.equal(oracle_top_k(scores, labels.float()), got)


def test_the_oracle_picks_as_many_as_there_are_and_drops_a_tie_at_the_border() -> None:
    scores, labels = case("all apart")
    assert torch.equal(oracle_top_k(scores, labels).sum(1), labels.sum(1))
    tied, two = torch.tensor([[3.0, 2, 2, 1]]), torch.tensor([[1, 1, 0, 0]])
    assert oracle_top_k(tied, two).tolist() == [[True, False, False, False]]
    three = torch.tensor([[1, 1, 1, 0]])
    assert oracle_top_k(tied, three).tolist() == [[True, True, True, False]]


def test_with_the_oracle_micro_precision_is_micro_recall() -> None:
    scores, labels = case("all apart", 300)
    right, wrong, missed = (
        float(x.sum()) for x in count_decisions(oracle_top_k(scores, labels), labels)
    )
    assert wrong == missed
    assert float(micro_f1(count_decisions(oracle_top_k(scores, labels), labels))) == pytest.approx(
        right / (right + wrong)
    )


@every_kind
@pytest.mark.parametrize("k", [1, 3, 9, 12])
def test_the_best_k_are_picked_and_of_equals_the_first(kind: str, k: int) -> None:
    scores, _ = case(kind)
    got = top_k(scores, k)
    for row, picked in zip(scores.tolist(), got.tolist(), strict=True):
        best = sorted(range(len(row)), key=lambda c: (-row[c], c))[:k]
        assert [c for c, there in enumerate(picked) if there] == sorted(best)


def test_a_probability_of_a_half_is_not_above_it() -> None:
    logits = torch.tensor([[-1e-6, 0.0, 1e-6, -math.inf, math.inf, math.nan]])
    assert above_half(logits).tolist() == [[False, False, True, False, True, False]]


def test_many_images_are_judged_without_a_warning() -> None:
    scores, labels = case("half precision", 20_000, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = average_precision(scores, labels)
    same(got, scikit(scores, labels))
