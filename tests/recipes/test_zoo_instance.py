"""Two steps of the recipes of instance segmentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from stillhouse.models import zoo
from stillhouse.recipes import load
from zoo_runs import two_steps

WORDS = [
    "data.train.count=8",
    "data.val.count=2",
    "data.test.count=4",
    "data.batch=4",
    "engine.device=cpu",
    "engine.tensorboard=false",
    "engine.workers=0",
    "engine.log_every=1",
    "train.epochs=1",
    "teacher.train.epochs=1",
    "teacher.gate=false",
]
SAID = {"solov2": {"class", "mask", "class/tld"}, "mask_rcnn": {"mask", "roi/inter", "roi/intra"}}


@pytest.mark.parametrize("name", SAID)
def test_two_steps_on_embedded_scenes(name: str, tmp_path: Path) -> None:
    lines = two_steps(load.load(f"digits/{name}", WORDS), tmp_path / "run", "ap")
    said = {key.removeprefix("term/") for key in lines[0] if key.startswith("term/")}
    assert said >= SAID[name]


@pytest.mark.parametrize("name", SAID)
def test_the_student_is_much_smaller_than_the_teacher(name: str) -> None:
    recipe = load.load(f"digits/{name}")
    assert recipe.teacher is not None
    student, teacher = (
        sum(p.numel() for p in zoo.create(spec.name, 10, 3, **spec.options).parameters())
        for spec in (recipe.student, recipe.teacher)
    )
    assert student < 150_000 and 5 * student < teacher
