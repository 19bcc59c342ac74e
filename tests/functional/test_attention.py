"""Attention, factors and class maps, against loops and the numbers that are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from feature_maps import STUDENT, TEACHER, agrees, finite, maps
from references import hidden
from stillhouse.functional import attention as ours

LOSSES = [ours.attention_transfer, ours.factor_transfer, ours.attended_factor_transfer]
every = pytest.mark.parametrize("loss", LOSSES, ids=lambda f: f.__name__)


@pytest.mark.parametrize(
    ("loss", "value"), [*zip(LOSSES, [0.2200592, 0.3913119, 0.3660693], strict=True)]
)
def test_known_values(loss, value: float) -> None:
    assert float(loss(STUDENT, TEACHER)) == pytest.approx(value, rel=1e-6)


@every
def test_values_and_gradients_are_those_of_loops(loss) -> None:
    student, teacher = maps(3, 4, 2, 3)
    formula = getattr(hidden, loss.__name__)
    agrees(lambda s: loss(s, teacher), lambda s: formula(s, teacher.tolist()), student)


@pytest.mark.parametrize("power", [1.0, 2.0, 4.0])
def test_attention_to_any_power(power: float) -> None:
    student, teacher = maps(2, 3, 2, 2)
    agrees(
        lambda s: ours.attention_transfer(s, teacher, power),
        lambda s: hidden.attention_transfer(s, teacher.tolist(), power),
        student,
    )


@every
def test_gradients_are_those_of_small_steps(loss) -> None:
    student, teacher = maps(2, 3, 2, 2)
    assert torch.autograd.gradcheck(loss, (student, teacher))


@every
def test_a_positive_scale_of_either_side_says_nothing(loss) -> None:
    student, teacher = maps(3, 4, 2, 3)
    torch.testing.assert_close(loss(5 * student, teacher / 3), loss(student, teacher))


def test_attention_sees_no_sign_and_no_order_of_channels() -> None:
    student, teacher = maps(3, 4, 2, 3)
    want = ours.attention_transfer(student, teacher)
    torch.testing.assert_close(ours.attention_transfer(-student, teacher[:, [2, 0, 3, 1]]), want)
    more = torch.cat((teacher, teacher), 1)  # a mean over channels, however many there are
    torch.testing.assert_close(ours.attention_transfer(student, more), want)


@every
def test_the_same_map_is_at_no_distance_at_all(loss) -> None:
    same = torch.randn(3, 4, 2, 3)
    value, slope = finite(lambda s: loss(s, same), same)
    assert (value == 0).all()
    assert (slope == 0).all()


@every
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-8, 1e8])
def test_maps_without_a_direction_are_finite(loss, scale: float) -> None:
    teacher = torch.randn(2, 4, 2, 3)
    _, slope = finite(lambda s: loss(s, teacher), scale * torch.randn(2, 4, 2, 3))
    if scale == 0:
        assert (slope == 0).all()
    finite(lambda s: loss(s, scale * teacher), torch.randn(2, 4, 2, 3))
    finite(lambda s: loss(s, teacher), scale * torch.ones(2, 4, 2, 3))


def test_a_vector_without_length_has_no_direction_and_no_gradient() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-20, 0.0]])
    value, slope = finite(lambda x: (ours.unit_vectors(x) * torch.tensor([1.0, 2.0])).sum(-1), rows)
    torch.testing.assert_close(value[:2], torch.tensor([0.6 + 1.6, 0.0]))
    assert (slope[0] != 0).all()
    assert (slope[1:] == 0).all()


# --------------------------------------------------------------------------------------- class maps


def test_the_mean_of_a_class_map_is_the_logit_but_for_the_bias() -> None:
    image, linear = torch.randn(3, 4, 6, 6), torch.nn.Linear(4, 5)
    found = ours.class_maps(image, linear.weight, size=2)
    assert found.shape == (3, 5, 4)
    logits = linear(image.mean((2, 3)))
    torch.testing.assert_close(found.mean(2) + linear.bias, logits)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_class_maps_are_averages_of_what_speaks_for_a_class(size: int) -> None:
    image, weight = torch.randn(2, 3, 6, 6), torch.randn(4, 3)
    whole = [[hidden.class_map(i, row) for row in weight.tolist()] for i in image.tolist()]
    want = F.adaptive_avg_pool2d(torch.tensor(whole), size).flatten(2)
    torch.testing.assert_close(ours.class_maps(image, weight, size), want)


def test_normalised_class_maps_are_directions_over_space() -> None:
    image, weight = torch.randn(2, 3, 6, 6), torch.randn(4, 3)
    found = ours.class_maps(image, weight, 2, normalise=True)
    torch.testing.assert_close(found, F.normalize(ours.class_maps(image, weight, 2), dim=2))
    torch.testing.assert_close(ours.class_maps(7 * image, weight, 2, normalise=True), found)


def test_a_map_smaller_than_its_cells_is_repeated() -> None:
    found = ours.class_maps(torch.ones(1, 2, 1, 1), torch.ones(3, 2), 2)
    assert found.tolist() == [[[2.0] * 4] * 3]


def test_class_attention_is_a_mean_over_classes_and_cells() -> None:
    student, teacher = torch.randn(2, 3, 5, 4)
    want = (student - teacher).square().mean((1, 2))
    torch.testing.assert_close(ours.class_attention_transfer(student, teacher), want)


def test_class_maps_teach_the_classifier_as_well_as_the_map() -> None:
    image = torch.randn(2, 3, 4, 4, dtype=torch.double, requires_grad=True)
    weight = torch.randn(4, 3, dtype=torch.double, requires_grad=True)

    def loss(image: Tensor, weight: Tensor) -> Tensor:
        return ours.class_maps(image, weight, 2, normalise=True)

    assert torch.autograd.gradcheck(loss, (image, weight))
