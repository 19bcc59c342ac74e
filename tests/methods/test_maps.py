"""Pairs of taps that have to be maps."""

from __future__ import annotations

import pytest

from settings import setting
from stillhouse.errors import UserError
from stillhouse.methods.maps import check_maps


def test_pairs_come_with_their_shapes() -> None:
    (one, two) = check_maps(setting(), (("stage1", "stage3"), ("stage1", "stage2@pre")))
    assert one == ("stage1", "stage3", (4, 8, 8, 8), (4, 64, 2, 2))
    assert two == ("stage1", "stage2@pre", (4, 8, 8, 8), (4, 32, 4, 4))


def test_vectors_are_maps_of_one_pixel_where_they_may_be() -> None:
    vectors = (("penultimate", "penultimate"),)
    ((_, _, before, after),) = check_maps(setting(), vectors, vectors=True)
    assert (before, after) == ((4, 32, 1, 1), (4, 64, 1, 1))
    with pytest.raises(UserError, match="student's tap 'penultimate' gives 4 x 32, .* name taps"):
        check_maps(setting(), vectors)
    with pytest.raises(UserError, match="teacher's tap 'pool' gives 4 x 64"):
        check_maps(setting(), (("stage1", "pool"),))
