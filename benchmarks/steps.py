"""What a training step costs under each method, beside the same student without a teacher.

`.venv/bin/python benchmarks/steps.py` prints a table and writes benchmarks/results/steps.csv. Steps
of all methods are timed in turn, round by round; given are the median of the ratios to a plain step
of the same round, the images a second that this makes of the plain step's median, and how many
numbers a method trains beside the student. The teacher is asked live by every method; where a store
may hold its answers, the ratio with the store is benchmarks/store.py's.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import torch

from rows import Options, Row, options, write
from stillhouse.build.data import make_training_loader
from stillhouse.build.networks import untrained_teacher
from stillhouse.build.run import make_pupil
from stillhouse.build.session import Session
from stillhouse.build.teacher import make_teacher
from stillhouse.distributed import combine
from stillhouse.engine.environment import seed_everything
from stillhouse.methods.catalogue import published
from stillhouse.methods.control import Control
from stillhouse.models import cost
from stillhouse.recipes import load
from stillhouse.recipes.schema import Recipe
from stillhouse.teachers.base import observe
from stillhouse.types import Clock

ROUNDS, WARMUP, STEPS = 7, 1, 6
PLAIN = "none"
# made for several labels an image, or for channels that student and teacher share
DENSE = {"boxes", "masks"}  # needs of methods for detectors and segmenters
ELSEWHERE = ("mld", "tld", "tld_dist", "bcd", "ps", "cd", "id", "l2d")
OPTIONS: dict[str, dict[str, str | int]] = {
    "pkd": {"adapter": "pointwise"},
    "crd": {"negatives": 512},
}


def recipes() -> dict[str, Recipe]:
    """The embedded recipe under every method for one class an image."""
    live = load.load("digits/numbers", ["engine.device=cpu", "teacher.remember=false"])
    made = {PLAIN: replace(live, method=(Control(),), teacher=None)}
    for name in published():
        if name not in ELSEWHERE and not DENSE & set(published()[name].card.needs):
            words: dict[str, str | int] = {"name": name, **OPTIONS.get(name, {})}
            made[name] = load.replace_sections(live, {"method": words})
    dist_plus = ["dist", "channel_relation", "spatial_relation", "acclimation"]
    made["dist+"] = load.replace_sections(live, {"method": [{"name": name} for name in dist_plus]})
    return made


class Steps:
    """Forward and backward of a student under one method, again and again."""

    def __init__(self, recipe: Recipe, session: Session) -> None:
        teacher, sources = recipe.teacher, session.sources
        taught = None if teacher is None else untrained_teacher(teacher, session)
        self.pupil = make_pupil(recipe, session, taught).train()
        self.teacher = make_teacher(recipe, session, taught, self.pupil.method)
        device, views = session.hardware.device, self.pupil.method.views
        self.loader = make_training_loader(recipe, sources, device, views)

    def seconds(self, number: int, steps: int) -> float:
        """Processor time of some steps of one epoch, the loader's time included."""
        since = time.process_time()
        for batch in islice(self.loader.epoch(number), steps):
            self.pupil.zero_grad()
            traces = observe(self.teacher, batch, self.pupil.method.views)
            combine(self.pupil(batch, traces, Clock(1, 100, 10))).backward()
        return time.process_time() - since


def measure(made: dict[str, Recipe], chosen: Options) -> list[Row]:
    """A row for each recipe: its steps beside plain ones."""
    seed_everything(0, False)
    session = Session.open(made[PLAIN], quiet=True)
    steps = {name: Steps(recipe, session) for name, recipe in made.items()}
    spent: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(chosen.warmup + chosen.rounds):
        for name, one in steps.items():
            seconds = one.seconds(number, chosen.steps)
            if number >= chosen.warmup:
                spent[name].append(seconds)
    plain = statistics.median(spent[PLAIN])
    rows: list[Row] = []
    for name, times in spent.items():
        ratio = statistics.median(t / p for t, p in zip(times, spent[PLAIN], strict=True))
        images = chosen.steps * made[name].data.batch / (ratio * plain)
        own = cost.parameters(steps[name].pupil.method)
        rows.append(
            {"method": name, "ratio": round(ratio, 2), "images_s": round(images), "trained": own}
        )
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    chosen = options(argv, __doc__, "steps", rounds=ROUNDS, warmup=WARMUP, steps=STEPS)
    torch.set_num_threads(1)
    rows = measure(recipes(), chosen)
    write(chosen.out, rows)
    for row in rows:
        sys.stdout.write("{method:<18} {ratio:>6} x {images_s:>8,}/s {trained:>9,}\n".format(**row))


if __name__ == "__main__":
    main()
