"""What the teacher's store costs and saves: time of a step, size on the disk, error of a gradient.

`.venv/bin/python benchmarks/store.py` prints two tables and writes benchmarks/results/store.csv.
Steps of all teachers are timed in turn, round by round, and the median of the ratios to a step
without a teacher of the same round is given. Gradients are of random logits, against those with the
logits themselves.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from unittest.mock import patch

import torch
from torch import Tensor

from rows import Options, Row, options, write
from stillhouse.build.data import make_training_loader
from stillhouse.build.networks import TeacherNetwork, untrained_teacher
from stillhouse.build.run import make_pupil
from stillhouse.build.session import Session
from stillhouse.build.teacher import make_teacher
from stillhouse.distributed import combine
from stillhouse.engine.environment import seed_everything
from stillhouse.methods.control import Control
from stillhouse.objectives import presets
from stillhouse.recipes import load
from stillhouse.recipes.schema import Recipe
from stillhouse.teachers.base import observe
from stillhouse.teachers.store.outputs import RowFormat
from stillhouse.types import Clock

ROUNDS, WARMUP, STEPS = 15, 2, 20
RECIPE = "digits/numbers"
SHAPE = (256, 1000)
FORMS = {
    "full": RowFormat(SHAPE[1], "full"),
    "half": RowFormat(SHAPE[1], "half"),
    "half, top 100": RowFormat(SHAPE[1], "half", 100),
    "half, top 10": RowFormat(SHAPE[1], "half", 10),
}
LOSSES = {
    "kd, temperature 1": presets.kd(temperature=1),
    "kd, temperature 4": presets.kd(temperature=4),
    "dist, temperature 1": presets.dist(),
    "mse": presets.mse(),
}


def recipes(name: str = RECIPE) -> dict[str, Recipe]:
    """One recipe under each kind of teacher."""
    words = ["engine.device=cpu", "teacher.remember=false"]
    live = load.load(name, words)
    return {
        "none": replace(live, method=(Control(),), teacher=None),
        "live": live,
        "remembered": load.load(name, ["engine.device=cpu", "teacher.remember=true"]),
        "stored, full": load.load(name, [*words, "teacher.store={precision: full}"]),
        "stored, half": load.load(name, [*words, "teacher.store=true"]),
    }


class Steps:
    """Forward and backward of a student under one kind of teacher, again and again."""

    def __init__(self, recipe: Recipe, session: Session, taught: TeacherNetwork) -> None:
        mine = taught if recipe.teacher else None
        self.pupil = make_pupil(recipe, session, mine).train()
        self.teacher = make_teacher(recipe, session, mine, self.pupil.method)
        self.loader = make_training_loader(recipe, session.sources, session.hardware.device)

    def seconds(self, number: int, steps: int) -> float:
        """Processor time of some steps of one epoch; every epoch holds every image."""
        since = time.process_time()
        for batch in islice(self.loader.epoch(number), steps):
            self.pupil.zero_grad()
            traces = observe(self.teacher, batch, self.pupil.method.views)
            combine(self.pupil(batch, traces, Clock(0, 1, 1))).backward()
        return time.process_time() - since


def speed(chosen: Options) -> list[Row]:
    """Time of a step beside one without a teacher, once every answer is known."""
    seed_everything(0, False)
    made = recipes(chosen.recipe)
    session = Session.open(made["live"], quiet=True)
    assert made["live"].teacher is not None
    taught = untrained_teacher(made["live"].teacher, session)
    steps = {name: Steps(recipe, session, taught) for name, recipe in made.items()}
    for batch in steps["remembered"].loader.epoch(0):
        steps["remembered"].teacher(batch)
    ratios: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(chosen.warmup + chosen.rounds):
        spent = {name: one.seconds(number, chosen.steps) for name, one in steps.items()}
        if number >= chosen.warmup:
            for name, seconds in spent.items():
                ratios[name].append(seconds / spent["none"])
    return [
        {"what": "step, ratio to none", "case": n, "value": round(statistics.median(r), 3)}
        for n, r in ratios.items()
    ]


def fidelity() -> list[Row]:
    """Relative error of the student's gradient, and bytes an answer."""
    torch.manual_seed(0)
    student, teacher = (3 * torch.randn(SHAPE) for _ in range(2))
    found: list[Row] = []
    for name, form in FORMS.items():
        heard = form.unpack(form.pack(teacher), torch.device("cpu"))
        size = sum(column.size for column in form.columns().values())
        found.append({"what": "bytes an answer", "case": name, "value": size})
        for said, loss in LOSSES.items():
            exact, kept = (gradient(loss, student, logits) for logits in (teacher, heard))
            error = float((kept - exact).norm() / exact.norm())
            found.append(
                {"what": f"gradient error, {said}", "case": name, "value": float(f"{error:.2g}")}
            )
    return found


def gradient(loss: presets.Preset, student: Tensor, teacher: Tensor) -> Tensor:
    """What a loss asks of the student's logits, in double precision."""
    own = student.double().requires_grad_()
    loss(own, teacher.double()).backward()
    assert own.grad is not None
    return own.grad


def main(argv: Sequence[str] | None = None) -> None:
    chosen = options(
        argv, __doc__, "store", rounds=ROUNDS, warmup=WARMUP, steps=STEPS, recipe=RECIPE
    )
    torch.set_num_threads(1)
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.dict(os.environ, {"STILLHOUSE_CACHE": folder}),
    ):
        rows = speed(chosen) + fidelity()
    write(chosen.out, rows)
    for row in rows:
        print(f"{row['what']:<36} {row['case']:<16} {row['value']}")


if __name__ == "__main__":
    main()
