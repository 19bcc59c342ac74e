"""Teacher, control and two methods on embedded data: does it help?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from stillhouse.objectives import presets
from stillhouse.recipes import load
from stillhouse.recipes.schema import Comparison, Methods
from stillhouse.study.jobs import Workers
from stillhouse.study.plan import Plan, make_plan
from stillhouse.study.results import Study
from stillhouse.study.runner import conduct
from stillhouse.study.teachers import Say

RECIPE = "digits/numbers"
SHORTER = ("teacher.train.epochs=10", "engine.evaluate_every=5", "engine.tensorboard=false")
# With the papers' own weights; nothing here was chosen by looking at the demo's test split.
METHODS: dict[str, Methods] = {"kd": (presets.kd(),), "dkd": (presets.dkd(warmup=1.0),)}


def demo_plan(seeds: int, epochs: float) -> Plan:
    """The study that the demonstration is."""
    recipe = load.load(RECIPE, [f"train.epochs={epochs}", *SHORTER])
    return make_plan(replace(recipe, study=Comparison(dict(METHODS), seeds=seeds)))


def demonstrate(plan: Plan, folder: Path, workers: Workers, say: Say) -> Study:
    """Train everything; what is finished already is read."""
    say("data: images of two handwritten digits, 100 classes, made here; nothing is downloaded")
    return conduct(plan, folder, workers, say)
