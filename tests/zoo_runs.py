"""What the tests of the papers' recipes share: plans, their numbers, and runs of two steps."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

from stillhouse.models import weights, zoo
from stillhouse.recipes import load
from stillhouse.recipes.schema import Recipe
from stillhouse.runs.execute import execute
from stillhouse.study.plan import StudyPlan, make_plan
from stillhouse.study.results import read_study, write_plan
from stillhouse.study.table import make_rows

SMALL = ("data.batch=8", "engine.device=cpu", "engine.tensorboard=false", "engine.workers=0")


@cache
def plan_of(name: str) -> StudyPlan:
    return make_plan(load.load(name))


def arm_of(table: str, label: str) -> Recipe:
    return next(arm.recipe for arm in plan_of(table).arms if arm.label == label)


def folder_of(name: str) -> set[str]:
    found = (n.rpartition("/") for n in load.zoo())
    return {leaf for folder, _, leaf in found if folder == name}


def numbers_of(plan: StudyPlan, folder: Path) -> dict[str, float | None]:
    """What the table of a study says of the paper, before anything is trained."""
    write_plan(plan, folder, "top1", "test")
    return {row.method: row.paper for row in make_rows(read_study(folder))}


def value_at(content: Any, dotted: str) -> Any:
    for key in dotted.split("."):
        content = content[int(key)] if isinstance(content, list) else content[key]
    return content


def two_steps(recipe: Recipe, folder: Path, headline: str = "top1") -> list[dict[str, Any]]:
    """The record of a run of two steps."""
    result = execute(recipe, folder, say=lambda _: None)
    assert (result.student["steps"], result.student["of"]) == (2, 2)
    assert 0 <= result.student[result.split][headline] <= 100
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    numbers = [v for line in lines for v in line.values() if isinstance(v, float)]
    assert numbers and all(map(math.isfinite, numbers))
    return lines


def shrunk(name: str, sizes: dict[int, int]) -> list[str]:
    """A recipe's own transforms at other sizes of images, as overrides."""
    data = load.to_dict(load.load(name))["data"]
    words = []
    for key in ("transforms", "evaluation"):
        for one in data[key]:
            one |= {"size": sizes[one["size"]]} if one.get("size", 0) in sizes else {}
        words.append(f"data.{key}={json.dumps(data[key])}")
    return words


def random_weights(name: str, classes: int, folder: Path) -> Path:
    path = folder / f"{name.rpartition('/')[2]}.safetensors"
    weights.save_weights(zoo.create(name, classes), path)
    return path
