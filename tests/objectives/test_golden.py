"""Numbers that were worked out once, by hand and by the authors' code, and printed beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from stillhouse.objectives import presets
from stillhouse.objectives.activation import Sigmoid, Softmax
from stillhouse.objectives.distance import CrossEntropy
from stillhouse.objectives.logit import LogitObjective
from stillhouse.objectives.preprocess import Standardize
from stillhouse.objectives.reduction import Mean
from stillhouse.objectives.weighting import Disagreement, PowerSum
from stillhouse.types import Site


def rows(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.double)


def maps(*channels: Any) -> Tensor:
    """One image: (1, C, H, W)."""
    return torch.tensor([channels], dtype=torch.double)


def check(got: Tensor, want: float, rtol: float = 1e-6) -> None:
    torch.testing.assert_close(got.double(), rows(want)[0], rtol=rtol, atol=0)


def value(point: LogitObjective, student: Tensor, teacher: Tensor, target: Any = None) -> Tensor:
    """The mean of one objective, without its weight and without a squared temperature."""
    return replace(point, kappa="none")(Site(student, teacher, target)).mean()


# -------------------------------------------------- the toy case of logit standardisation, figure 2

TEACHER = rows([3, 2, 1, 0])
WRONG = rows([1.8, 2, 1, 0])  # its arg-max is another class
SHRUNK = rows([0.3, 0.2, 0.1, 0])  # the teacher by ten


@pytest.mark.parametrize(
    ("student", "raw", "sample", "population"),
    [(WRONG, 0.1749128, 0.0995059, 0.1346995), (SHRUNK, 0.3457333, 0.0, 0.0)],
    ids=["wrong", "shrunk"],
)
def test_the_toy_case_of_lskd(
    student: Tensor, raw: float, sample: float, population: float
) -> None:
    check(presets.kd(temperature=1.0)(student, TEACHER), raw)
    for variant, want in (("reference", sample), ("paper", population)):
        loss = presets.lskd(temperature=1.0, weight=1.0, variant=variant)(student, TEACHER)
        if want:
            check(loss, want)
        else:
            assert 0 <= loss < 1e-9


# -------------------------------------------------------------------------------- softmax, inputs A

A = rows([1, 2, 3]), rows([3, 2, 0])
FIRST = torch.tensor([0])


@pytest.mark.parametrize(("tau", "want"), [(1, 1.3640057), (2, 1.7590439), (4, 1.9619569)])
def test_kd(tau: float, want: float) -> None:
    check(presets.kd(temperature=tau)(*A), want)


@pytest.mark.parametrize(("variant", "want"), [("reference", 1.2064635), ("paper", 1.7584796)])
def test_lskd(variant: Any, want: float) -> None:
    check(presets.lskd(temperature=2, weight=1, variant=variant)(*A), want)


def test_dkd() -> None:
    parts = presets.dkd(temperature=4, alpha=1, beta=8).objectives()
    at = Site(*A, FIRST)
    check(parts["target"](at).mean(), 1.3509753)
    check(parts["rest"](at).mean(), 1.0993109)
    check(presets.dkd(temperature=4, alpha=1, beta=8)(*A, FIRST), 10.1454628)


def test_ttm_and_its_weight() -> None:
    check(presets.ttm(gamma=0.25)(*A), 0.5866768)
    check(PowerSum(0.25)(*A)[0], 2.0630714)
    check(presets.wttm(gamma=0.25)(*A), 1.2103561)


def test_ats() -> None:
    ats = presets.ats(labelled=4, others=2, weight=1)
    check(ats(*A, FIRST), 1.5990277)
    soft = ats.objectives()["ats"].teacher_transform(A[1], FIRST).softmax(1)
    torch.testing.assert_close(soft, rows([0.362793, 0.465836, 0.171371]), rtol=0, atol=5e-7)


# ------------------------------------------------------------------------------ relations, inputs B

B = rows([1, 2, 3], [0, 1, 0]), rows([3, 2, 0], [0, 2, 1])


@pytest.mark.parametrize(
    ("tau", "inter", "intra"), [(1, 0.9675584, 1.3333332), (4, 1.0500829, 1.3333335)]
)
def test_dist(tau: float, inter: float, intra: float) -> None:
    dist = presets.dist(temperature=tau, beta=1, gamma=1, variant="reference")
    parts = dist.objectives()
    check(value(parts["inter"], *B), inter)
    check(value(parts["intra"], *B), intra, rtol=2e-7)
    check(dist(*B), tau**2 * (inter + intra), rtol=1e-7)


def test_dist_of_the_authors_code() -> None:
    for tau, want in ((1, 2.3008917), (4, 38.1346627)):
        check(presets.dist(temperature=tau, beta=1, gamma=1, variant="reference")(*B), want)
    check(presets.dist(temperature=4, beta=1, gamma=1)(*B), 2.3834164)


@pytest.mark.parametrize(("tau", "inter", "intra"), [(1, 1.0201633, 1.0), (0.5, 0.9807232, 1.0)])
def test_dist_of_sigmoids(tau: float, inter: float, intra: float) -> None:
    parts = presets.tld_dist(temperature=tau, variant="reference").objectives()
    check(value(parts["inter"], *B), inter)
    check(value(parts["intra"], *B), intra)


def test_two_rows_leave_correlations_of_classes_that_are_only_signs() -> None:
    """Of three columns two go the other way: 2/3 of 2, up to what eps swallows."""
    check(value(presets.dist(temperature=1).objectives()["intra"], *B), 4 / 3, rtol=1e-12)


def test_mld() -> None:
    check(presets.mld()(*B), 0.6016688)


def test_kd_of_two_rows() -> None:
    check(presets.kd(temperature=4)(*B), 1.0302828)


# --------------------------------------------------------------------------------- binary, inputs C

C = rows([1, -2, 0]), rows([2, -4, -1])


@pytest.mark.parametrize(
    ("tau", "cross", "divergence"),
    [
        (0.5, 0.2188847, 0.1042730),
        (0.75, 0.6152196, 0.1747957),
        (1, 1.2885122, 0.2508805),
        (4, 31.5523114, 0.6651798),
    ],
)
def test_tld(tau: float, cross: float, divergence: float) -> None:
    check(presets.tld(temperature=tau)(*C), cross)
    check(presets.tld(temperature=tau, subtract_entropy=True)(*C), divergence)


def test_bcd_without_a_power_is_binary_cross_entropy() -> None:
    check(presets.bcd(beta=0)(*C), 1.2885122)


def test_bcd_and_its_weights() -> None:
    check(presets.bcd()(*C), 0.2414024)
    weights = Disagreement()(*C)
    torch.testing.assert_close(weights, rows([0.149738, 0.101217, 0.231059]), rtol=0, atol=5e-7)


@pytest.mark.parametrize(
    ("detach", "slope"),
    [(False, [-0.107449, 0.027348, 0.226675]), (True, [-0.022422, 0.010245, 0.053388])],
)
def test_the_gradient_of_bcd(detach: bool, slope: list[float]) -> None:
    student = C[0].clone().requires_grad_()
    presets.bcd(detach=detach)(student, C[1]).backward()
    torch.testing.assert_close(student.grad, rows(slope), rtol=0, atol=5e-7)


def test_single_numbers() -> None:
    check(presets.bcd()(rows([0]), rows([2])), 0.2639484)
    check(presets.tld(temperature=0.5)(rows([1]), rows([-2])), 0.5227389)
    check(presets.mld()(rows([1]), rows([-2])), 0.8287249)


def test_ps() -> None:
    hot = torch.tensor([[1, 0, 1, 0]])
    check(presets.ps()(rows([1, 2, 3, 0]), rows([3, 2, 0, 1]), hot), 1.3365555)


# ----------------------------------------------------------------------------------- maps, inputs D

D = rows([0, 1, 2, 3]), rows([3, 1, 0, 0])


@pytest.mark.parametrize(("tau", "want"), [(1, 2.4569382), (4, 2.8153920)])
def test_cwd(tau: float, want: float) -> None:
    student, teacher = (x.view(1, 1, 2, 2) for x in D)
    check(presets.cwd(temperature=tau, weight=1)(student, teacher), want)


def test_localisation_distillation_is_kd_of_an_edge() -> None:
    """The formula sums over bins, and so does kd; the authors' code takes the mean."""
    check(presets.kd(temperature=10)(*D), 2.7168076)
    mean = LogitObjective(activation=Softmax(10), reduction=Mean("mean"))
    check(mean(Site(*D)).mean(), 0.6792019)


def test_a_mean_over_classes_is_a_sum_by_their_number() -> None:
    for point in (
        LogitObjective(activation=Softmax(2.0), distance=CrossEntropy()),
        LogitObjective(activation=Sigmoid(), distance=CrossEntropy()),
    ):
        mean = replace(point, reduction=Mean("mean"))
        torch.testing.assert_close(mean(Site(*D)).total, point(Site(*D)).total / 4)


# ----------------------------------------------------------------------------------- feature losses

F_S = maps([[0, 1], [2, 3]], [[1, -1], [0, 2]])
F_T = maps([[1, 1], [0, 2]], [[-1, 3], [2, 0]])


def with_product(image: Tensor) -> Tensor:
    return torch.cat((image, image[:, :1] * image[:, 1:]), 1)


def test_pkd() -> None:
    check(presets.pkd(weight=1)(F_S, F_T), 0.9496112)


def test_relations_of_dist_plus() -> None:
    student, teacher = with_product(F_S), with_product(F_T)
    check(presets.channel_relation()(student, teacher), 1.5693375)
    check(presets.spatial_relation()(student, teacher), 1.2741834)


def test_standardised_squares_are_correlations() -> None:
    """The same three rows through the two stages that LSKD and DIST are made of."""
    rows_ = Standardize()(B[0], None)
    torch.testing.assert_close(rows_[0], rows(-1, 0, 1), rtol=1e-6, atol=0)
