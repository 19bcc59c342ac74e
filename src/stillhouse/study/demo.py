"""Studies on embedded data, one for each task: teacher, control and one or two methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from stillhouse.build.store import Say
from stillhouse.errors import UserError, did_you_mean, quote
from stillhouse.recipes import load
from stillhouse.recipes.schema import Comparison
from stillhouse.study.arguments import parse_method
from stillhouse.study.jobs import Workers
from stillhouse.study.plan import StudyPlan, make_plan
from stillhouse.study.results import Study
from stillhouse.study.runner import run_study


@dataclass(frozen=True)
class Demo:
    """A recipe on embedded data, made short, and the methods that are compared."""

    data: str  # what the images show
    recipe: str
    overrides: tuple[str, ...]
    methods: Mapping[str, str]  # by label, as in `study --methods`
    seeds: int
    epochs: float  # of each student


# Weights are those of the papers or of docs/results; none was chosen by the test scores of a demo.
# Dense tasks have fewer images than in docs/results, so that a demo takes minutes on two cores.
SCENES = ("data.train.count=1000", "data.val.count=200", "data.test.count=300")
DEMOS: dict[str, Demo] = {
    "classification": Demo(
        "images of two handwritten digits, 100 classes",
        "digits/numbers",
        ("teacher.train.epochs=10", "engine.evaluate_every=5"),
        {"kd": "kd:weight=1", "dkd": "dkd:warmup=1"},
        seeds=3,
        epochs=10,
    ),
    "multilabel": Demo(
        "scenes of one to four handwritten digits, any of 10 classes",
        "digits/labels",
        ("teacher.train.epochs=8", "engine.evaluate_every=4"),
        {"l2d": "l2d"},
        seeds=3,
        epochs=5,
    ),
    "detection": Demo(
        "scenes of one to four handwritten digits with boxes, 10 classes",
        "digits/objects",
        ("teacher.train.epochs=6", "engine.evaluate_every=4", *SCENES),
        {"tld": "tld:temperature=1:weight=2.5"},
        seeds=2,
        epochs=4,
    ),
    "semantic": Demo(
        "scenes of one to four handwritten digits with a class for each pixel",
        "digits/semantic",
        ("teacher.train.epochs=6", "engine.evaluate_every=4", *SCENES),
        {"dist": "dist:temperature=1:beta=1:gamma=1:sites=[pixel]"},
        seeds=2,
        epochs=4,
    ),
    "instance": Demo(
        "scenes of one to four handwritten digits with masks, 10 classes",
        "digits/solov2",
        ("teacher.train.epochs=6", "engine.evaluate_every=4", *SCENES),
        {"tld": "tld:temperature=1:weight=2.5"},
        seeds=2,
        epochs=4,
    ),
}


def find_demo(task: str) -> Demo:
    """The demo of a task; raises UserError for a task without one."""
    if task not in DEMOS:
        hint = did_you_mean(task, DEMOS) or f"; choose from {', '.join(DEMOS)}"
        raise UserError(f"--task: no demo of task {quote(task)}{hint}")
    return DEMOS[task]


def make_demo_plan(demo: Demo, seeds: int | None = None, epochs: float | None = None) -> StudyPlan:
    """The plan of a demo, by default with its own number of seeds and of epochs per student."""
    epochs = demo.epochs if epochs is None else epochs
    words = [f"train.epochs={epochs}", *demo.overrides, "engine.tensorboard=false"]
    recipe = load.load(demo.recipe, words)
    methods = {
        label: load.replace_sections(recipe, {"method": parse_method(text, recipe)}).method
        for label, text in demo.methods.items()
    }
    seeds = demo.seeds if seeds is None else seeds
    return make_plan(replace(recipe, study=Comparison(methods, seeds=seeds)))


def run_demo(demo: Demo, plan: StudyPlan, folder: Path, workers: Workers, say: Say) -> Study:
    """Run the plan of a demo; finished runs in the folder are only read."""
    say(f"data: {demo.data}, generated here; no download")
    return run_study(plan, folder, workers, say)
