"""Whole runs that take less than a second, and the command called in this process."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from stillhouse.build.session import Session
from stillhouse.engine import train as training
from stillhouse.engine.run import Run
from stillhouse.recipes import load
from stillhouse.recipes.schema import Recipe
from stillhouse.runs.execute import Result, execute
from stillhouse.runs.teacher import member_weights
from stillhouse.runs.training import STUDENT

# A teacher of two thirds and a student that knows next to nothing: enough to see every part move.
WORDS = (
    "train.epochs=2",
    "teacher.train.epochs=3",
    "engine.tensorboard=false",
    "engine.device=cpu",
)


def quick(*words: str) -> Recipe:
    return load.load("digits/raw", [*WORDS, *words])


def run(folder: Path, *words: str, say: Callable[[str], None] = lambda _: None, **options: Any):
    return execute(quick(*words), folder, say=say, **options)


def student_bytes(result: Result | Path) -> bytes:
    return ((result if isinstance(result, Path) else result.folder) / STUDENT).read_bytes()


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The record of a run without the speed, which no two runs share."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]


def kept_teacher() -> Path:
    """The weights of the quick teacher, trained at the first call of a session."""
    recipe = quick()
    assert recipe.teacher is not None
    session = Session.open(recipe)
    found = member_weights(recipe, recipe.teacher, session)
    if found is None:
        from stillhouse.runs.teacher import train_member

        found = train_member(recipe, recipe.teacher, session, lambda _: None)
    return found


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """A signal at a step of the next training that gets there, once."""
    set_rates, asked = training.set_rates, []

    def interrupted(run: Run, clock: Any) -> None:
        if clock.step == step and not asked:
            asked.append(step)
            signal.raise_signal(signal.SIGTERM)
        set_rates(run, clock)

    monkeypatch.setattr(training, "set_rates", interrupted)


class Ended(NamedTuple):
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that a wrong word ends in."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert self.code == 2 and len(lines) == 1, self
        assert self.err.splitlines()[-1] == lines[0] and "Traceback" not in self.err, self
        return lines[0].removeprefix("error: ")


Call = Callable[..., Ended]


def caller(capsys: pytest.CaptureFixture[str]) -> Call:
    from stillhouse.cli import main

    def call(*words: str) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in words])
        said = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return Ended(end.value.code, said.out, said.err)

    return call
