"""Three ragged ranks train and measure detectors as one process does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from detectors import FAMILIES, small_detector, small_two_stage, some_batch
from stillhouse import methods
from stillhouse.distributed import combine, mean_terms, rank
from stillhouse.engine.devices import Hardware
from stillhouse.engine.evaluate import evaluate
from stillhouse.engine.pupil import Pupil
from stillhouse.methods.build import make_method
from stillhouse.methods.setting import Setting
from stillhouse.models.taps import Tapped
from stillhouse.objectives import presets
from stillhouse.tasks.detection import Detection
from stillhouse.teachers.base import observe
from stillhouse.teachers.frozen import Frozen
from stillhouse.types import Clock

COUNTS = (3, 0, 2, 1, 0, 4)
CUTS = 0, 1, 5, 6  # the second rank has most images, two of them without boxes
ALONE = 1, 1, 6, 6  # the first rank has an image without boxes only, the third has none at all
CLOCK = Clock(0, 10, 5)


# Of the published forms of BCKD and LD, one depends on how images are divided among ranks.
METHODS: dict[str, tuple[Any, ...]] = {
    "bckd": (methods.bckd(variant="paper"),),
    "ld": (methods.ld(variant="paper"),),
    "rm": (methods.rm(temperature=0.1),),
    "crosskd": (methods.crosskd(after=1),),
    "relations": (presets.dist(), presets.tld_dist(sites=("class_main",))),
    "rows": (presets.dkd(), presets.lskd(), presets.mse(), presets.bcd(sites=("class_rest",))),
    "fgd": (methods.fgd(), methods.fgd(variant="reference")),
    "fkd": (methods.fkd(temperature=2.0),),
    "masks": (methods.fgfi(), methods.defeat(finest=6.0)),
    "gid": (methods.gid(),),
    "tokens": (methods.maskd(),),
    "masked": (methods.maskd(init=0.0, customise=0.0),),
    "features": (presets.pkd(pairs="levels"), methods.mgd(masked=0, pairs="levels")),
}


PLAIN = (presets.tld(weight=2.0),)


AT_REGIONS = (presets.kd(sites=("roi",)), presets.dist(sites=("roi",)))
TWO_STAGES = ("faster_rcnn", "cascade_rcnn")
REGION_METHODS: dict[str, tuple[Any, ...]] = {
    "proposals": (methods.gid(),),
    "masked proposals": (methods.maskd(),),
}


def pupil_of(family: str, method: Any = PLAIN) -> tuple[Pupil[Any], Frozen[Any]]:
    torch.manual_seed(0)
    make = small_two_stage if family in TWO_STAGES else small_detector
    student = make(family).double().eval()  # batch norms of a rank differ from those of all
    teacher = make(family, backbone="stillhouse/medium").double()
    example = torch.zeros(1, 3, 48, 64, dtype=torch.double)
    made = make_method(method, Setting(student, teacher, example)).double().eval()
    task = Detection(5)
    pupil = Pupil(Tapped(student, made.student_taps, (example,)), made, task)
    return pupil, Frozen(teacher, task.inputs, made.teacher_taps, (example,))


def step(module: torch.nn.Module, teacher: Frozen[Any], batch: Any) -> dict[str, Any]:
    module.zero_grad()
    terms = module(batch, observe(teacher, batch), CLOCK)
    combine(terms).backward()
    pupil = getattr(module, "module", module)
    scores = evaluate(pupil.task, Tapped(pupil.student.model), [batch], Hardware("cpu"))
    return {
        "means": dict(mean_terms(terms)),
        "slopes": {name: p.grad for name, p in pupil.named_parameters()},
        "scores": dict(scores),
    }


def split(cuts: tuple[int, ...], number: int) -> Any:
    return some_batch(*COUNTS).rows(slice(cuts[number], cuts[number + 1]))


def on_each_rank() -> dict[str, Any]:
    found = {}
    for family in FAMILIES:
        pupil, teacher = pupil_of(family)
        wrapped = DistributedDataParallel(pupil)
        found[family] = step(wrapped, teacher, split(CUTS, rank()))
    for family in TWO_STAGES:
        pupil, teacher = pupil_of(family, AT_REGIONS)
        found[family] = step(DistributedDataParallel(pupil), teacher, split(CUTS, rank()))
    for name, method in METHODS.items():
        pupil, teacher = pupil_of("gfocal", method)
        unused = pupil.method.unused_parameters
        wrapped = DistributedDataParallel(pupil, find_unused_parameters=unused)
        found[name] = step(wrapped, teacher, split(CUTS, rank()))
    for name, method in REGION_METHODS.items():
        pupil, teacher = pupil_of("faster_rcnn", method)
        unused = pupil.method.unused_parameters
        wrapped = DistributedDataParallel(pupil, find_unused_parameters=unused)
        found[name] = step(wrapped, teacher, split(CUTS, rank()))
    pupil, teacher = pupil_of("gfocal")
    found["alone"] = step(DistributedDataParallel(pupil), teacher, split(ALONE, rank()))
    return found


def compare(found: dict[str, Any], whole: dict[str, Any]) -> None:
    for name, value in whole["means"].items():
        torch.testing.assert_close(found["means"][name], value, rtol=1e-9, atol=1e-12)
    for name, slope in whole["slopes"].items():
        if slope is None:
            assert found["slopes"][name] is None, name
            continue
        gap = (found["slopes"][name] - slope).abs().max()
        assert float(gap) <= 1e-9 * float(slope.abs().max()) + 1e-14, name
    assert found["scores"] == pytest.approx(whole["scores"], nan_ok=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_three_ranks_are_one_process(ranks: list[dict[str, Any]], family: str) -> None:
    pupil, teacher = pupil_of(family)
    whole = step(pupil, teacher, some_batch(*COUNTS))
    assert {"class", "box", "class/tld"} <= set(whole["means"])
    for found in ranks:
        compare(found[family], whole)


@pytest.mark.parametrize("family", TWO_STAGES)
def test_two_stages_on_three_ranks(ranks: list[dict[str, Any]], family: str) -> None:
    whole = step(*pupil_of(family, AT_REGIONS), some_batch(*COUNTS))
    assert {"kd/roi/kd", "dist/roi/inter", "dist/roi/intra", "proposal"} <= set(whole["means"])
    for found in ranks:
        compare(found[family], whole)


@pytest.mark.parametrize("name", REGION_METHODS)
def test_methods_of_two_stages_on_three_ranks(ranks: list[dict[str, Any]], name: str) -> None:
    whole = step(*pupil_of("faster_rcnn", REGION_METHODS[name]), some_batch(*COUNTS))
    for found in ranks:
        compare(found[name], whole)


@pytest.mark.parametrize("name", METHODS)
def test_methods_of_detectors_on_three_ranks(ranks: list[dict[str, Any]], name: str) -> None:
    whole = step(*pupil_of("gfocal", METHODS[name]), some_batch(*COUNTS))
    for found in ranks:
        compare(found[name], whole)


def test_a_rank_without_boxes_and_one_without_images(ranks: list[dict[str, Any]]) -> None:
    pupil, teacher = pupil_of("gfocal")
    whole = step(pupil, teacher, some_batch(*COUNTS).rows(slice(1, 6)))
    for found in ranks:
        compare(found["alone"], whole)
