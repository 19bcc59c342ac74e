"""Three ragged ranks, some of whose images have no labels, train as one process does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from detectors import small_detector, small_two_stage, some_batch
from instance_room import batch_of, network
from segment_room import CLASSES, EXAMPLE, masks, segmenters
from stillhouse.batches import Batch
from stillhouse.data.targets import collate, target_at
from stillhouse.distributed import combine, mean_terms, rank
from stillhouse.engine.pupil import Pupil
from stillhouse.methods.build import make_method
from stillhouse.methods.setting import Setting
from stillhouse.models.taps import Tapped
from stillhouse.objectives import presets
from stillhouse.tasks.classification import Classification
from stillhouse.tasks.detection import Detection
from stillhouse.tasks.instance import Instance
from stillhouse.tasks.multilabel import Multilabel
from stillhouse.tasks.semantic import Semantic
from stillhouse.teachers.base import observe
from stillhouse.teachers.frozen import Frozen
from stillhouse.types import Clock
from tiny import Net, batch

COUNTS = (3, 0, 2, 1, 2, 4)  # objects
CUTS = 0, 1, 4, 6
UNKNOWN = (0, 2, 3)  # the first rank has no labels, the second some, the third all
CLOCK = Clock(0, 10, 5)


def images_of(several: bool) -> Batch[Any]:
    torch.manual_seed(3)
    found = batch(6)
    hot = (torch.rand(6, 5) < 0.4).double()
    return replace(found, target=hot) if several else found


def pixels() -> Batch[Any]:
    torch.manual_seed(3)
    keys = torch.arange(6)
    images = torch.randn(6, *EXAMPLE.shape[1:], dtype=torch.double)
    return Batch(images, masks(6), keys, torch.zeros_like(keys))


def detectors(make: Callable[[str], Any], family: str) -> Callable[[], list[Any]]:
    return lambda: [make(family).double().eval() for _ in range(2)]


def nets() -> list[Any]:
    return [Net().double(), Net(8).double()]


LOGITS = (presets.kd(), presets.dist())
CASES: dict[str, tuple[Any, Callable[[], Any], Any, tuple[Any, ...]]] = {
    "classification": (Classification(5), nets, lambda: images_of(False), LOGITS),
    "multilabel": (Multilabel(5), nets, lambda: images_of(True), (presets.tld(),)),
    "summed": (Multilabel(5, reduction="sum"), nets, lambda: images_of(True), (presets.tld(),)),
    "dense": (
        Detection(5),
        detectors(small_detector, "gfocal"),
        lambda: some_batch(*COUNTS),
        (presets.tld(), presets.dist()),
    ),
    "two stages": (
        Detection(5),
        detectors(small_two_stage, "faster_rcnn"),
        lambda: some_batch(*COUNTS),
        (presets.kd(sites=("roi",)),),
    ),
    "cells": (
        Instance(5),
        detectors(network, "solov2"),
        lambda: batch_of(*COUNTS),
        (presets.tld(),),
    ),
    "pixels": (
        Semantic(CLASSES),
        lambda: list(segmenters()),
        pixels,
        (presets.kd(sites=("pixel",)), presets.dist(sites=("pixel",))),
    ),
}


def part(name: str, span: slice) -> Batch[Any]:
    """Some images of a case, collated as a loader collates them."""
    whole = CASES[name][2]()
    targets = [None if i in UNKNOWN else target_at(whole.target, i) for i in range(6)]
    return replace(whole.rows(span), target=collate(targets[span]))


def pupil_of(name: str) -> tuple[Pupil[Any], Frozen[Any]]:
    task, make, _, methods = CASES[name]
    torch.manual_seed(0)
    student, teacher = make()
    example = part(name, slice(0, 1)).images
    method = make_method(methods, Setting(student, teacher, example)).double()
    return Pupil(Tapped(student), method, task), Frozen(teacher, task.inputs)


def step(module: torch.nn.Module, teacher: Frozen[Any], batch: Batch[Any]) -> dict[str, Any]:
    terms = module(batch, observe(teacher, batch), CLOCK)
    combine(terms).backward()
    pupil = getattr(module, "module", module)
    slopes = {name: p.grad for name, p in pupil.named_parameters()}
    return {"means": dict(mean_terms(terms)), "slopes": slopes}


def on_each_rank() -> dict[str, Any]:
    found = {}
    for name in CASES:
        pupil, teacher = pupil_of(name)
        own = part(name, slice(CUTS[rank()], CUTS[rank() + 1]))
        found[name] = step(DistributedDataParallel(pupil), teacher, own)
    return found


@pytest.mark.parametrize("name", CASES)
def test_three_ranks_are_one_process(ranks: list[dict[str, Any]], name: str) -> None:
    assert part(name, slice(0, 1)).target is None
    pupil, teacher = pupil_of(name)
    whole = step(pupil, teacher, part(name, slice(0, 6)))
    assert all(float(mean) > 0 for mean in whole["means"].values())
    for found in (rank_found[name] for rank_found in ranks):
        assert found["means"].keys() == whole["means"].keys()
        for term, value in whole["means"].items():
            torch.testing.assert_close(found["means"][term], value, rtol=1e-9, atol=1e-12)
        for path, slope in whole["slopes"].items():
            gap = (found["slopes"][path] - slope).abs().max()
            assert float(gap) <= 1e-9 * float(slope.abs().max()) + 1e-14, path
