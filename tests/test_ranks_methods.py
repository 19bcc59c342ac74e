"""Every method of the catalogue on three ranks with ragged shards, against one process.

The ranks take each method through two steps without an optimiser, so that what a method remembers
of one step is in the next. Nothing but the method may tell ranks apart: BatchNorms
read no batch, and DDP does not copy buffers from the first rank. MGD draws a mask in each process
for its own images, which makes ranks differ from one process by design; it has none here.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from classroom import CLOCKS, SAMPLES, Classroom, batch, calm, enrol, rows
from stillhouse.distributed import average_gradients, combine, mean_terms, rank
from stillhouse.methods.catalogue import composed_methods

IMAGES = 7
STEPS = CLOCKS["first"], CLOCKS["last"]
CATALOGUE = {
    n: s for n, s in composed_methods().items() if not {"boxes", "masks"} & set(s.card.needs)
}
SCENES = {
    "a rank without weight": ((0, 2, 4, 7), [1, 0.5, 0, 0, 2, 0, 0.25]),
    "a rank without images": ((0, 3, 3, 7), None),
}
every = pytest.mark.parametrize("name", CATALOGUE)
every_scene = pytest.mark.parametrize("scene", SCENES)


def seat(name: str, scene: str) -> Classroom:
    """The same at each call and on each rank."""
    counts = SCENES[scene][1]
    weight = None
    if counts is not None:
        weight = torch.zeros(SAMPLES, dtype=torch.double)
        weight[batch(IMAGES).keys] = torch.tensor(counts, dtype=torch.double)
    return enrol(calm(CATALOGUE[name]), weight).doubled().still()


def learn(classroom: Classroom, module: Any, shard: slice) -> dict[str, Any]:
    """Two steps: the loss, each term's mean, every gradient, and what is remembered."""
    pupil, found = classroom.pupil, []
    images = rows(batch(IMAGES, dtype=torch.double), shard)
    for clock in STEPS:
        pupil.zero_grad()
        classroom.teacher.zero_grad()
        terms = module(images, classroom.asked(images), clock)
        loss = combine(terms)
        loss.backward()
        teacher = [p for p in classroom.teacher.parameters() if p.requires_grad]
        if classroom.learner is not None:
            teacher = list(classroom.learner.trainable.values())
            average_gradients(teacher)
        named = [*pupil.named_parameters(), *((f"teacher{i}", p) for i, p in enumerate(teacher))]
        found.append(
            {
                "loss": loss.detach(),
                "means": dict(mean_terms(terms)),
                "slopes": {n: p.grad.clone() for n, p in named if p.grad is not None},
            }
        )
    buffers = {name: x.clone() for name, x in pupil.method.named_buffers()}
    return {"steps": found, "buffers": buffers}


@cache
def alone(name: str, scene: str) -> dict[str, Any]:
    """What one process finds."""
    classroom = seat(name, scene)
    return learn(classroom, classroom.pupil, slice(None))


def on_a_rank(name: str, scene: str) -> dict[str, Any]:
    cuts, classroom = SCENES[scene][0], seat(name, scene)
    module = DistributedDataParallel(
        classroom.pupil,
        broadcast_buffers=False,
        find_unused_parameters=classroom.method.unused_parameters,
    )
    return learn(classroom, module, slice(cuts[rank()], cuts[rank() + 1]))


def on_each_rank() -> dict[Any, Any]:
    return {(name, scene): on_a_rank(name, scene) for scene in SCENES for name in CATALOGUE}


def close(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9 * max(1, float(want.abs().max())))


@every_scene
@every
def test_three_ranks_are_one_process(name: str, scene: str, ranks: list[dict[Any, Any]]) -> None:
    for step, want in enumerate(alone(name, scene)["steps"]):
        found = [rank[name, scene]["steps"][step] for rank in ranks]
        close(torch.stack([one["loss"] for one in found]).mean(), want["loss"])
        for one in found:
            assert list(one["means"]) == list(want["means"])
            for term, value in want["means"].items():
                close(one["means"][term], value)
            for path in one["slopes"].keys() | want["slopes"].keys():
                got, slope = (x["slopes"].get(path) for x in (one, want))
                if got is None or slope is None:  # DDP fills up what one process leaves out
                    assert not any(x.any() for x in (got, slope) if x is not None), path
                else:
                    close(got, slope)
    for one in ranks:
        for buffer, value in alone(name, scene)["buffers"].items():
            torch.testing.assert_close(one[name, scene]["buffers"][buffer], value)


@every
def test_the_steps_and_scenes_are_not_the_same_one(name: str) -> None:
    """So that what holds above holds of something."""
    found, plain = (alone(name, scene)["steps"] for scene in SCENES)
    assert all(any(slope.any() for slope in step["slopes"].values()) for step in found)
    assert any(
        not torch.equal(step["means"][term], other["means"][term])
        for step, other in zip(found, plain, strict=True)
        for term in step["means"]
        if not term.startswith("label")
    )
