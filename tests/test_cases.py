"""The loop over cases that many tests stand on fails where one of them does, and names it."""

from __future__ import annotations

import pytest

from cases import SHOWN, check_each


def even(number: int) -> None:
    assert number % 2 == 0, f"{number} is odd\nand more"


def test_every_failing_case_is_named() -> None:
    with pytest.raises(AssertionError) as caught:
        check_each(even, [("two", 2), ("three", 3), ("four", 4), ("five", 5)])
    told = str(caught.value).splitlines()
    assert told == [
        "2 of 4 cases fail:",
        "three: AssertionError: 3 is odd",
        "five: AssertionError: 5 is odd",
    ]
    assert str(caught.value.__cause__).startswith("3 is odd")


def test_an_error_of_any_kind_is_a_failure() -> None:
    with pytest.raises(AssertionError, match="one: ZeroDivisionError"):
        check_each(lambda number: 1 / number, [("one", 0), ("two", 1)])


def test_many_failures_are_counted() -> None:
    with pytest.raises(AssertionError, match=r"\.\.\. and 10 more"):
        check_each(even, ((str(number), 1) for number in range(SHOWN + 10)))


def test_no_cases_at_all_are_a_failure() -> None:
    check_each(even, [("two", 2)])
    with pytest.raises(AssertionError, match="no cases"):
        check_each(even, [])
