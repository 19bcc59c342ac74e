"""When a first phase ends."""

from __future__ import annotations

import pytest

from stillhouse.methods.phases import in_first_phase
from stillhouse.types import Clock


@pytest.mark.parametrize(
    ("length", "last"),
    [(0.0, -1), (0.125, 4), (0.5, 19), (1, 9), (1.5, 14), (3, 29), (30, 39)],
)
def test_it_is_a_share_of_the_run_or_some_epochs(length: float, last: int) -> None:
    steps = [step for step in range(40) if in_first_phase(length, Clock(step, 40, 10))]
    assert steps == list(range(last + 1))
