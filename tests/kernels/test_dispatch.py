"""A faster function stands in where it fits, and only there."""

from __future__ import annotations

import pytest

from stillhouse.functional import partial_softmax_kl, sigmoid_kl, softmax_kl
from stillhouse.kernels.dispatch import Accelerated, reference_only


@pytest.fixture
def double() -> Accelerated:
    """Twice a number, whose stand-ins say who they are by a fraction."""

    @Accelerated
    def twice(x: float, scale: float = 2.0) -> float:
        """Two times a number."""
        return scale * x

    @twice.stand_in(lambda x, scale=2.0: x > 10)
    def large(x: float, scale: float = 2.0) -> float:
        return scale * x + 0.1

    @twice.stand_in(lambda x, scale=2.0: x > 5 and scale == 2.0)
    def middling(x: float, scale: float = 2.0) -> float:
        return scale * x + 0.2

    return twice


def test_the_reference_answers_where_nothing_fits(double: Accelerated) -> None:
    assert double(3.0) == 6.0
    assert double(7.0, scale=3.0) == 21.0
    assert double.pick(3.0) is double.reference


def test_the_first_stand_in_that_fits_answers(double: Accelerated) -> None:
    assert double(20.0) == 40.1
    assert double(7.0) == 14.2
    assert double(7.0, scale=2.0) == 14.2


def test_inside_reference_only_nothing_stands_in(double: Accelerated) -> None:
    with reference_only():
        assert double(20.0) == 40.0
        with reference_only():
            pass
        assert double(20.0) == 40.0
    assert double(20.0) == 40.1


def test_reference_only_ends_with_an_error_too(double: Accelerated) -> None:
    with pytest.raises(RuntimeError), reference_only():
        raise RuntimeError
    assert double(20.0) == 40.1


def test_a_function_keeps_its_name_and_what_it_says(double: Accelerated) -> None:
    assert double.__name__ == "twice"
    assert double.__doc__ == "Two times a number."


def test_what_enters_as_a_stand_in_stays_a_function_of_its_own(double: Accelerated) -> None:
    def mine(x: float, scale: float = 2.0) -> float:
        return -1.0

    assert double.stand_in(lambda x, scale=2.0: x < 0)(mine) is mine
    assert double(-4.0) == -1.0
    assert double(3.0) == 6.0


@pytest.mark.parametrize("function", [softmax_kl, sigmoid_kl, partial_softmax_kl])
def test_the_dense_losses_can_be_stood_in_for(function: Accelerated) -> None:
    assert isinstance(function, Accelerated)
    assert function.__doc__
