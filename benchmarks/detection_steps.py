"""What a training step of a distilled detector costs by method, beside the same student alone.

`.venv/bin/python benchmarks/detection_steps.py` prints a table and writes
benchmarks/results/detection_steps.csv. Methods are those of benchmarks/studies/detection.yaml, one
for each set of losses, and rank mimicking; steps are timed as in benchmarks/steps.py.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from rows import options, write
from steps import PLAIN, ROUNDS, STEPS, WARMUP, measure
from stillhouse.methods.control import Control
from stillhouse.recipes import load
from stillhouse.recipes.schema import Recipe
from stillhouse.study.plan import make_plan

STUDY = Path(__file__).parent / "studies" / "detection.yaml"


def recipes() -> dict[str, Recipe]:
    """The recipe of the study alone and under every method; options do not change the cost."""
    plan = make_plan(load.load(STUDY, ["engine.device=cpu"]))
    made = {PLAIN: replace(plan.recipe, study=None, method=(Control(),), teacher=None)}
    for arm in plan.arms:
        if not arm.is_control:
            names = [one.name for one in arm.recipe.method]
            made["dist+" if len(names) > 3 else "+".join(names)] = arm.recipe
    made["rm"] = load.replace_sections(arm.recipe, {"method": {"name": "rm"}})
    return made


def main(argv: Sequence[str] | None = None) -> None:
    chosen = options(argv, __doc__, "detection_steps", rounds=ROUNDS, warmup=WARMUP, steps=STEPS)
    torch.set_num_threads(1)
    rows = measure(recipes(), chosen)
    write(chosen.out, rows)
    for row in rows:
        sys.stdout.write("{method:<24} {ratio:>6} x {images_s:>8,}/s {trained:>9,}\n".format(**row))


if __name__ == "__main__":
    main()
