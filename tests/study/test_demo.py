"""The plan of the demo, and that it is an ordinary study."""

from __future__ import annotations

from pathlib import Path

from alone import Alone
from quick import quick
from stillhouse.objectives import presets
from stillhouse.study import demo
from stillhouse.study.results import read_study


def test_the_demo_plan() -> None:
    plan = demo.make_demo_plan(3, 10)
    assert [arm.label for arm in plan.arms] == ["none", "kd", "dkd"]
    assert [arm.recipe.method for arm in plan.arms[1:]] == [
        (presets.kd(),),
        (presets.dkd(warmup=1.0),),
    ]
    assert plan.seeds == (0, 1, 2)
    assert all(arm.recipe.train.epochs == 10 for arm in plan.arms)
    (teacher,) = plan.teachers.values()
    assert teacher.gate and teacher.train is not None and teacher.train.epochs == 10


def test_the_demo_writes_a_study_folder(tmp_path: Path, monkeypatch) -> None:
    recipe = quick()
    monkeypatch.setattr(demo.load, "load", lambda name, words: recipe)
    plan = demo.make_demo_plan(2, 1)
    monkeypatch.undo()
    messages: list[str] = []
    result = demo.run_demo(plan, tmp_path / "demo", Alone(), messages.append)
    assert messages[0].startswith("data: ")
    assert [line.partition(":")[0] for line in result.summaries()] == ["KD", "DKD"]
    assert read_study(tmp_path / "demo").summaries() == result.summaries()
