"""Three ragged ranks train and measure networks with masks as one process does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from instance_room import CLOCK, FAMILIES, batch_of, pair, pupil_of
from stillhouse import methods
from stillhouse.batches import Batch
from stillhouse.distributed import combine, mean_terms, rank
from stillhouse.engine.devices import Hardware
from stillhouse.engine.evaluate import evaluate
from stillhouse.engine.pupil import Pupil
from stillhouse.models.taps import Tapped
from stillhouse.objectives import presets
from stillhouse.teachers.base import observe

OBJECTS = (3, 0, 2, 1, 0, 2)
CUTS = {
    "ragged": (0, 1, 5, 6),  # the second rank has most images, two of them without objects
    "alone": (1, 2, 6, 6),  # the first has an image without objects only, the third no images
}
MASKS = (presets.tld(2.0, sites=("mask",)), presets.dice(sites=("mask",)))
CELLS = (presets.tld(), presets.dist(), presets.bcd(sites=("class_main",)))
REGIONS = (presets.kd(sites=("roi",)), presets.dist(sites=("roi",)))
LEVELS = (presets.pkd(pairs="levels"), methods.mgd(masked=0, pairs="levels"))
METHODS: dict[str, tuple[Any, ...]] = {
    "solov2": (*CELLS, *MASKS),
    "mask_rcnn": (*REGIONS, *MASKS),
    "cascade_mask_rcnn": MASKS,
    "levels": LEVELS,
}


def family_of(name: str) -> str:
    return name if name in FAMILIES else "solov2"


def room(name: str) -> tuple[Pupil[Any], Any]:
    """Batch norms of a rank differ from those of all, so they are in eval mode."""
    student, teacher = pair(family_of(name))
    pupil, frozen = pupil_of(student.eval(), teacher, *METHODS[name])
    return pupil, frozen


def step(module: torch.nn.Module, teacher: Any, batch: Batch[Any], scored: bool) -> dict[str, Any]:
    module.zero_grad()
    terms = module(batch, observe(teacher, batch), CLOCK)
    combine(terms).backward()
    pupil = getattr(module, "module", module)
    found = {
        "means": dict(mean_terms(terms)),
        "slopes": {name: p.grad for name, p in pupil.named_parameters()},
    }
    if scored:
        network = Tapped(pupil.student.model)
        found["scores"] = dict(evaluate(pupil.task, network, [batch], Hardware("cpu")))
    return found


def batch(cuts: tuple[int, ...], number: int) -> Batch[Any]:
    return batch_of(*OBJECTS).rows(slice(cuts[number], cuts[number + 1]))


def on_each_rank() -> dict[str, Any]:
    found = {}
    for name in METHODS:
        for case, cuts in CUTS.items():
            pupil, teacher = room(name)
            wrapped = DistributedDataParallel(pupil)
            scored = case == "ragged" and name in FAMILIES
            found[f"{name} {case}"] = step(wrapped, teacher, batch(cuts, rank()), scored)
    return found


@pytest.mark.parametrize("case", CUTS)
@pytest.mark.parametrize("name", METHODS)
def test_three_ranks_are_one_process(ranks: list[dict[str, Any]], name: str, case: str) -> None:
    pupil, teacher = room(name)
    cuts = CUTS[case]
    whole_batch = batch_of(*OBJECTS).rows(slice(cuts[0], cuts[-1]))
    whole = step(pupil, teacher, whole_batch, case == "ragged" and name in FAMILIES)
    assert len(whole["means"]) > len(METHODS[name])
    for found in (rank_found[f"{name} {case}"] for rank_found in ranks):
        assert found["means"].keys() == whole["means"].keys()
        for term, value in whole["means"].items():
            torch.testing.assert_close(found["means"][term], value, rtol=1e-9, atol=1e-12)
        for path, slope in whole["slopes"].items():
            gap = (found["slopes"][path] - slope).abs().max()
            assert float(gap) <= 1e-9 * float(slope.abs().max()) + 1e-14, (term, path)
        assert found.get("scores") == pytest.approx(whole.get("scores"), nan_ok=True)


def test_there_are_masks_to_compare(ranks: list[dict[str, Any]]) -> None:
    for name in FAMILIES:
        found = ranks[0][f"{name} ragged"]
        for end in ("mask/tld", "mask/dice"):
            (value,) = (v for term, v in found["means"].items() if term.endswith(end))
            assert float(value) > 0, (name, end)
        assert found["scores"]["objects"] == sum(OBJECTS)
