"""Formats of numbers and names."""

from __future__ import annotations

import pytest

from stillhouse.explain.phrases import join_names, metric_name
from stillhouse.report.formatting import (
    format_alike,
    format_cell,
    format_count,
    format_fixed,
    format_ratio,
    format_seconds,
    format_short,
    is_numeric,
    truncate,
)


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (81.376, 2, "81.38"),
        (-0.5, 1, "−0.5"),
        (-0.0001, 2, "0.00"),
        (1234567.5, 1, "1,234,567.5"),
        (float("nan"), 2, "–"),
        (float("inf"), 2, "∞"),
        (float("-inf"), 2, "−∞"),
        (1e15, 2, "1.00e+15"),
    ],
)
def test_fixed_digits_and_minus_sign(value: float, digits: int, text: str) -> None:
    assert format_fixed(value, digits) == text


def test_cells_are_formatted_by_type() -> None:
    assert [format_cell(value, 1) for value in (None, 12345, -3, 0.25, "a, b")] == [
        "–",
        "12,345",
        "−3",
        "0.2",
        "a, b",
    ]


@pytest.mark.parametrize(
    "text", ["5", "81.4 ± 0.3", "-1,234.5", "−3", "12 %", "2e-05", "+5.3", ".5"]
)
def test_numeric_texts(text: str) -> None:
    assert is_numeric(text)


@pytest.mark.parametrize("text", ["", "kd", "3 seeds", "1.2.3", "1-2", "v2", "–"])
def test_texts_that_are_not_numeric(text: str) -> None:
    assert not is_numeric(text)


def test_units_fit_the_size() -> None:
    assert format_count(1_900_000, "FLOPs") == "1.9 MFLOPs"
    assert format_count(999_999, "B") == "1 MB"
    assert format_count(512, "B") == "512 B"
    assert format_count(0, "B") == "0 B"
    assert [format_seconds(value) for value in (1.5, 0.0012, 3.4e-5, 2e-8, 0.9999)] == [
        "1.5 s",
        "1.2 ms",
        "34 µs",
        "20 ns",
        "1 s",
    ]


def test_ratios_are_in_words() -> None:
    assert format_ratio(318_912, 22_780, "fewer", "more") == "14 × fewer"
    assert format_ratio(1.0, 3.14, "faster", "slower") == "3.1 × slower"
    assert format_ratio(100, 99, "less", "more") == "the same"
    assert format_ratio(None, 3, "less", "more") == format_ratio(0, 3, "less", "more") == "–"


def test_alike_numbers_have_the_same_digits() -> None:
    assert format_alike([0.5, -1.666, 1]) == ["0.50", "−1.67", "1.00"]
    assert format_alike([3, 40, 0]) == ["3", "40", "0"]
    assert format_alike([1e-9, 2.5e9]) == ["1e−9", "2.5e9"]
    assert format_alike([]) == []


def test_short_numbers_have_four_digits() -> None:
    assert [format_short(v) for v in (81.376, -1.5e-9, 1e9, 0.0, float("nan"))] == [
        "81.38",
        "−1.5e−9",
        "1e9",
        "0",
        "–",
    ]


def test_lists_and_long_names_are_cut() -> None:
    assert join_names([]) == "none" and join_names(["a", "b"]) == "a, b"
    assert join_names(list("abcdefg"), 2) == "a, b and 5 more"
    assert truncate("a very long name", 8) == "a very…"
    assert truncate("short", 8) == "short"


def test_a_metric_has_its_name_and_an_unknown_one_its_key() -> None:
    assert [
        metric_name(key)
        for key in ("top1", "map", "calibration_error", "cf1_oracle", "nds", "x_top3")
    ] == [
        "Top-1 accuracy",
        "mAP",
        "ECE",
        "CF1, oracle top-k",
        "nds",
        "x_top3",
    ]
