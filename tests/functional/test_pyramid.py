"""Maps compared at four resolutions."""

from __future__ import annotations

import pytest
import torch

from feature_maps import agrees, finite, maps
from references import hidden
from stillhouse.functional.pyramid import hierarchical_context


def test_known_value() -> None:
    student = torch.arange(64, dtype=torch.double).view(1, 1, 8, 8) / 10
    loss = hierarchical_context(student, 0.5 * student.flip(3))
    assert float(loss) == pytest.approx(3.3322917, rel=1e-7)


@pytest.mark.parametrize("side", [1, 2, 4, 8])
def test_values_and_gradients_are_those_of_loops(side: int) -> None:
    student, teacher = maps(2, 2, side, side)
    agrees(
        lambda s: hierarchical_context(s, teacher),
        lambda s: hidden.hierarchical_context(s, teacher.tolist()),
        student,
    )


def test_a_map_of_one_pixel_has_one_resolution() -> None:
    student, teacher = maps(3, 5, 1, 1)
    want = (student - teacher).square().mean((1, 2, 3))
    torch.testing.assert_close(hierarchical_context(student, teacher), want)


def test_oblong_and_odd_maps() -> None:
    for shape in [(2, 3, 2, 6), (2, 3, 5, 7)]:
        student, teacher = maps(*shape)
        assert hierarchical_context(student, teacher).shape == (2,)
        assert torch.autograd.gradcheck(hierarchical_context, (student, teacher))


def test_what_all_resolutions_agree_on_counts_once() -> None:
    student = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(hierarchical_context(student + 2, student), torch.full((2,), 4.0))


def test_the_same_map_is_at_no_distance_at_all() -> None:
    for same in (torch.randn(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)):
        value, slope = finite(lambda s, same=same: hierarchical_context(s, same), same)
        assert float(value) == 0
        assert (slope == 0).all()
