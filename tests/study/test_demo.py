"""The plans of the demos, and that they are ordinary studies."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from alone import Alone
from quick import quick
from stillhouse.cli.app import app
from stillhouse.errors import UserError
from stillhouse.objectives import presets
from stillhouse.study import demo
from stillhouse.study.results import read_study
from stillhouse.tasks.catalogue import TASKS


def test_the_demo_of_classification() -> None:
    plan = demo.make_demo_plan(demo.find_demo("classification"), 3, 10)
    assert [arm.label for arm in plan.arms] == ["none", "kd", "dkd"]
    assert [arm.recipe.method for arm in plan.arms[1:]] == [
        (presets.kd(),),
        (presets.dkd(warmup=1.0),),
    ]
    assert plan.seeds == (0, 1, 2)
    assert all(arm.recipe.train.epochs == 10 for arm in plan.arms)
    (teacher,) = plan.teachers.values()
    assert teacher.gate and teacher.train is not None and teacher.train.epochs == 10


def test_every_task_has_a_demo() -> None:
    assert set(demo.DEMOS) == set(TASKS)


@pytest.mark.parametrize("task", demo.DEMOS)
def test_a_demo_is_of_its_task_with_a_gated_teacher_and_a_control(task: str) -> None:
    shown = demo.find_demo(task)
    plan = demo.make_demo_plan(shown)
    assert plan.recipe.task.name == task
    assert [arm.label for arm in plan.arms] == ["none", *shown.methods]
    assert len(plan.seeds) == shown.seeds >= 2
    assert {arm.recipe.train.epochs for arm in plan.arms} == {shown.epochs}
    (teacher,) = plan.teachers.values()
    assert teacher.gate and teacher.train is not None


def test_the_command_of_an_unknown_task_names_the_tasks() -> None:
    with pytest.raises(UserError, match="semantic"):
        demo.find_demo("semantics")
    with pytest.raises(UserError, match=", ".join(demo.DEMOS)):
        demo.find_demo("xyz")


def test_the_demo_writes_a_study_folder(tmp_path: Path, monkeypatch) -> None:
    recipe, shown = quick(), demo.find_demo("classification")
    monkeypatch.setattr(demo.load, "load", lambda name, words: recipe)
    plan = demo.make_demo_plan(shown, 2, 1)
    monkeypatch.undo()
    messages: list[str] = []
    result = demo.run_demo(shown, plan, tmp_path / "demo", Alone(), messages.append)
    assert messages[0].startswith("data: ")
    assert [line.partition(":")[0] for line in result.summaries()] == ["KD", "DKD"]
    assert read_study(tmp_path / "demo").summaries() == result.summaries()


def test_the_command_says_where_each_demo_is_written(tmp_path: Path, monkeypatch) -> None:
    asked: list[tuple[str, Path | None]] = []
    monkeypatch.setattr(
        "stillhouse.cli.training.train_demo", lambda task, out, *_: asked.append((task, out))
    )
    CliRunner().invoke(app, ["demo", "--task", "instance"], catch_exceptions=False)
    CliRunner().invoke(app, ["demo", "--out", str(tmp_path)], catch_exceptions=False)
    assert asked == [("instance", None), ("classification", tmp_path)]
