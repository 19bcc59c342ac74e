"""The step that is made before a training."""

from __future__ import annotations

from typing import Any

import pytest

from quick import kept_teacher, quick
from stillhouse.build.session import Session
from stillhouse.runs import first_step
from stillhouse.runs.checks import TrainingChecks


@pytest.mark.parametrize(("slowest", "steps"), [(0.01, 2), (9.0, 1)])
def test_all_ranks_make_as_many_steps_as_the_slowest(
    monkeypatch: pytest.MonkeyPatch, slowest: float, steps: int
) -> None:
    made: list[Any] = []
    time_step = first_step.time_step

    def counted(*arguments: Any) -> Any:
        made.append(arguments)
        _, terms = time_step(*arguments)
        return (0.001, 0.002), terms

    monkeypatch.setattr(first_step, "time_step", counted)
    monkeypatch.setattr(first_step, "gather_objects", lambda value: [value, slowest])
    recipe = quick(f"teacher.weights={kept_teacher()}", "teacher.train=null")
    checked = TrainingChecks(recipe, Session.open(recipe)).check_training(recipe, timed=True)
    assert len(made) == steps
    assert 0 < checked.teacher_seconds < checked.seconds  # those of this rank
