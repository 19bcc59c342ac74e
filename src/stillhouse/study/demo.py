"""A study on embedded data: teacher, control and two methods."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from stillhouse.build.store import Say
from stillhouse.objectives import presets
from stillhouse.recipes import load
from stillhouse.recipes.schema import Comparison, Methods
from stillhouse.study.jobs import Workers
from stillhouse.study.plan import StudyPlan, make_plan
from stillhouse.study.results import Study
from stillhouse.study.runner import run_study

RECIPE = "digits/numbers"
OVERRIDES = ("teacher.train.epochs=10", "engine.evaluate_every=5", "engine.tensorboard=false")
# With the weights of the papers; no option was chosen by the test accuracy of the demo.
METHODS: dict[str, Methods] = {"kd": (presets.kd(),), "dkd": (presets.dkd(warmup=1.0),)}


def make_demo_plan(seeds: int, epochs: float) -> StudyPlan:
    """The plan of the demo, with so many seeds and epochs for each student."""
    recipe = load.load(RECIPE, [f"train.epochs={epochs}", *OVERRIDES])
    return make_plan(replace(recipe, study=Comparison(dict(METHODS), seeds=seeds)))


def run_demo(plan: StudyPlan, folder: Path, workers: Workers, say: Say) -> Study:
    """Run the demo; finished runs in the folder are only read."""
    say("data: images of two handwritten digits, 100 classes, generated here; no download")
    return run_study(plan, folder, workers, say)
