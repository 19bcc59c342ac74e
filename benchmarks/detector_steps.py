"""Training steps of our FCOS beside torchvision's, and both to the end on embedded scenes.

`.venv/bin/python benchmarks/detector_steps.py` times, in turn, a step (forward, loss, backward) of
our FCOS, of torchvision's FCOS through our adapter, and of torchvision's FCOS by its own forward
and losses, with the same backbone, pyramid, width and images; then trains the first two over three
seeds by the same recipe. Ours is the later version of FCOS, as torchvision's is. It writes
benchmarks/results/detector_steps.csv.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

import torchvision_networks
from detector_families import RECIPE, overrides
from rows import Options, Row, options, write
from stillhouse.batches import Batch, Objects
from stillhouse.build.data import make_training_loader
from stillhouse.build.session import Session
from stillhouse.distributed import combine
from stillhouse.models.factories import trust_factories
from stillhouse.recipes import load
from stillhouse.recipes.schema import Network, Recipe
from stillhouse.runs.execute import execute
from stillhouse.types import Trace

FOREIGN = "torchvision_networks:small_fcos"
ROUNDS, WARMUP, STEPS = 9, 2, 6
RUNS = Path("runs/detector-steps")
Step = Callable[[Batch[Objects]], Any]


def recipe_of(name: str, seed: int) -> Recipe:
    later = ["student.options.later=true"]
    recipe = load.load(RECIPE, [*overrides("fcos", "small", seed), *later])
    return recipe if name == "ours" else replace(recipe, student=Network(FOREIGN))


def our_step(network: nn.Module, session: Session) -> Step:
    def step(batch: Batch[Objects]) -> None:
        network.zero_grad()
        trace = Trace(network(batch.images))
        assigned = session.task.assign(trace, batch)
        combine(session.task.supervise(trace, batch, assigned)).backward()

    return step


def their_step(model: Any) -> Step:
    """As their reference script has it: lists of images and of targets, and the sum of losses."""

    def step(batch: Batch[Objects]) -> None:
        model.zero_grad()
        objects = [batch.target.rows(slice(i, i + 1)) for i in range(len(batch))]
        targets = [{"boxes": one.boxes, "labels": one.labels} for one in objects]
        sum(model(list(batch.images), targets).values()).backward()

    return step


def measure(chosen: Options) -> list[Row]:
    """A row for each way of making a step."""
    from stillhouse.build.networks import make_student

    torch.manual_seed(0)
    recipes = {name: recipe_of(name, 0) for name in ("ours", "adapted")}
    session = Session.open(recipes["ours"], quiet=True)
    with trust_factories():
        made = {name: make_student(one.student, session).train() for name, one in recipes.items()}
    steps = {name: our_step(network, session) for name, network in made.items()}
    steps["torchvision"] = their_step(torchvision_networks.small_fcos(10).train())
    loader = make_training_loader(recipes["ours"], session.sources, session.hardware.device)
    spent: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(chosen.warmup + chosen.rounds):
        batches = list(islice(loader.epoch(number), chosen.steps))
        for name, step in steps.items():
            since = time.process_time()
            for batch in batches:
                step(batch)
            if number >= chosen.warmup:
                spent[name].append(time.process_time() - since)
    images = chosen.steps * recipes["ours"].data.batch
    return [
        {
            "network": name,
            "images_s": round(images / statistics.median(times)),
            "ratio": round(
                statistics.median(a / b for a, b in zip(times, spent["torchvision"], strict=True)),
                2,
            ),
        }
        for name, times in spent.items()
    ]


def train(name: str, seeds: int) -> Row:
    """The mean test scores of one FCOS over several seeds."""
    scores = []
    for seed in range(seeds):
        folder = RUNS / f"{name}-{seed}"
        resume = (folder / "recipe.yaml").is_file()
        done = execute(recipe_of(name, seed), folder, resume=resume, say=lambda _: None)
        scores.append(done.student["test"])
    ap = [score["ap"] for score in scores]
    return {
        "ap": round(statistics.fmean(ap), 2),
        "ap_sd": round(statistics.stdev(ap), 2),
        "ap50": round(statistics.fmean(score["ap50"] for score in scores), 2),
        "seeds": seeds,
    }


def main(argv: Sequence[str] | None = None) -> None:
    chosen = options(argv, __doc__, "detector_steps", rounds=ROUNDS, warmup=WARMUP, steps=STEPS)
    torch.set_num_threads(1)
    with trust_factories():  # for FOREIGN
        rows = measure(chosen)
    for row in rows:
        if row["network"] != "torchvision":
            row |= train(str(row["network"]), 3)
    blank: Row = {"ap": "", "ap_sd": "", "ap50": "", "seeds": ""}
    write(chosen.out, [row if "ap" in row else {**row, **blank} for row in rows])
    for row in rows:
        sys.stdout.write(f"{row}\n")


if __name__ == "__main__":
    main()
