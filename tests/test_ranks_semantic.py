"""Three ragged ranks train segmenters as one process does, whatever each of them has labels for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from segment_room import CLASSES, EXAMPLE, IGNORED, SIDES, masks, segmenters
from stillhouse import methods
from stillhouse.batches import Batch
from stillhouse.distributed import combine, mean_terms, rank, sync_equal_buffers
from stillhouse.engine.pupil import Pupil
from stillhouse.engine.rank_norm import share_norms
from stillhouse.functional import site_maps
from stillhouse.methods.build import make_method
from stillhouse.methods.setting import Setting
from stillhouse.models.adapters import SafeBatchNorm2d
from stillhouse.models.taps import Tapped
from stillhouse.objectives import presets
from stillhouse.tasks.semantic import Semantic
from stillhouse.teachers.base import observe
from stillhouse.teachers.frozen import Frozen
from stillhouse.types import Clock, Term

IMAGES, STEPS = 6, 2
CUTS = 0, 1, 5, 6  # the only image of the first rank has no class at all
ALONE = 0, 2, 2, 6  # the second rank has no images
CLOCK = Clock(0, 10, 5)
QUEUES: dict[str, Any] = {"pixels": 9, "regions": 4, "pixel_samples": 12, "region_samples": 8}
METHODS: dict[str, tuple[Any, ...]] = {
    "skd": (methods.skd(), methods.skd(grid=0.25, variant="reference")),
    "hinge": (methods.skd(adversarial="hinge"),),
    "wgan": (methods.skd(adversarial="wgan"),),
    "ifvd": (methods.ifvd(), methods.ifvd(variant="reference")),
    "cirkd": (methods.cirkd(**QUEUES), methods.cirkd(**QUEUES, variant="reference", pool=2)),
    "sites": (
        presets.kd(sites=("pixel",)),
        presets.dist(sites=("pixel",)),
        presets.kd(sites=("channel",)),
    ),
    "pieces": (presets.kd(sites=("pixel",)), presets.dist(sites=("pixel",), variant="reference")),
    "features": (presets.cwd(), presets.pkd(adapter="pointwise"), presets.channel_relation()),
}
UNLABELLED = ("wgan", "ifvd", "cirkd", "pieces")


def batch(step: int, labelled: bool = True) -> Batch[Tensor | None]:
    """The first image has no pixel with a class."""
    random = torch.Generator().manual_seed(step)
    images = torch.randn(IMAGES, 3, *SIDES, generator=random, dtype=torch.double)
    target = masks(IMAGES, step)
    target[0] = IGNORED
    keys = torch.arange(IMAGES)
    return Batch(images, target if labelled else None, keys, torch.full_like(keys, step))


def pupil_of(method: tuple[Any, ...]) -> tuple[Pupil[Any], Frozen[Any]]:
    student, teacher = segmenters()
    torch.manual_seed(2)
    made = make_method(method, Setting(student, teacher, EXAMPLE)).double()
    task = Semantic(CLASSES)
    pupil = Pupil(Tapped(student, made.student_taps, (EXAMPLE,)), made, task)
    for part in pupil.modules():  # whose statistics are those of a rank
        if isinstance(part, nn.BatchNorm2d):
            part.eval()
    return pupil, Frozen(teacher, task.inputs, made.teacher_taps, (EXAMPLE,))


def some_steps(
    pupil: Pupil[Any], module: nn.Module, teacher: Frozen[Any], span: slice, labelled: bool
) -> dict[str, Any]:
    """What two steps give, in the second of which memories hold what the first one saw."""
    found: dict[str, Any] = {}
    for step in range(STEPS):
        part = batch(step, labelled).rows(span)
        module.zero_grad()
        terms = module(part, observe(teacher, part, 1), replace(CLOCK, step=step))
        combine(terms).backward()
        for name, mean in mean_terms(terms).items():
            found[f"{step} mean of {name}"] = mean
        for name, p in pupil.named_parameters():
            found[f"{step} slope of {name}"] = p.grad.clone()
    for name, buffer in pupil.method.named_buffers():
        found[f"buffer {name}"] = buffer.clone()
    return found


def on_each_rank() -> dict[str, Any]:
    found = {}
    for name in METHODS:
        for cuts, labelled, case in cases(name):
            pupil, teacher = pupil_of(METHODS[name])
            memories = {n: b for n, b in pupil.named_buffers() if ".queues." in n}
            for memory in memories.values():
                memory += rank()  # they begin as those of the first rank
            sync_equal_buffers(pupil)
            wrapped = DistributedDataParallel(pupil)
            assert memories.keys() <= wrapped.parameters_to_ignore
            span = slice(cuts[rank()], cuts[rank() + 1])
            with pytest.MonkeyPatch.context() as patch:
                if name == "pieces":  # of two lines; the whole process below has none
                    patch.setattr(site_maps, "LARGE", 1)
                    patch.setitem(site_maps.ELEMENTS_OF_A_PIECE, "cpu", 2 * CLASSES * 6)
                found[case] = some_steps(pupil, wrapped, teacher, span, labelled)
    student = normed()
    wrapped = DistributedDataParallel(student, broadcast_buffers=False)
    for cuts, case in ((CUTS, "norms"), (ALONE, "norms, a rank without images")):
        found[case] = norm_steps(student, wrapped, slice(cuts[rank()], cuts[rank() + 1]))
    found["pooled"] = pooled_step(slice(CUTS[rank()], CUTS[rank() + 1]))
    return found


def normed() -> nn.Module:
    torch.manual_seed(4)
    network = nn.Sequential(
        nn.Conv2d(3, 5, 3, stride=2),
        nn.BatchNorm2d(5),
        nn.Tanh(),
        nn.Sequential(nn.Conv2d(5, 4, 3), nn.BatchNorm2d(4, momentum=None, affine=False)),
    )
    return share_norms(network.double())


def pooled_step(span: slice) -> dict[str, Any]:
    """A norm of one value per channel, whose statistics are those that it has."""
    torch.manual_seed(5)
    norm = share_norms(nn.Sequential(SafeBatchNorm2d(3))).double()
    image = torch.randn(1, 3, 1, 1, dtype=torch.double).expand(IMAGES, -1, -1, -1)
    values = norm(image[span][:1] if span.start == 0 else image[:0])
    return {"values": values.detach(), **{n: b.clone() for n, b in norm.named_buffers()}}


def norm_steps(network: nn.Module, module: nn.Module, span: slice) -> dict[str, Any]:
    """Gradients and running statistics after two steps; a loss of the values to the power of 3."""
    found: dict[str, Any] = {}
    for step in range(STEPS):
        images = batch(step).rows(span).images
        module.zero_grad()
        total = module(images).pow(3).sum()
        combine({"cube": Term(total, total.new_tensor(float(len(images))))}).backward()
        for name, p in network.named_parameters():
            assert p.grad is not None
            found[f"{step} slope of {name}"] = p.grad.clone()
    found |= {name: buffer.clone() for name, buffer in network.named_buffers()}
    return found


def test_norms_of_three_ranks_are_those_of_one_process(ranks: list[dict[str, Any]]) -> None:
    network = normed()
    for case in ("norms", "norms, a rank without images"):
        whole = norm_steps(network, network, slice(None))
        for found in ranks:
            assert found[case].keys() == whole.keys()
            for part, value in whole.items():
                torch.testing.assert_close(
                    found[case][part], value, rtol=1e-9, atol=1e-10, msg=f"{case}: {part}"
                )


def test_a_single_value_on_all_ranks_has_no_statistics(ranks: list[dict[str, Any]]) -> None:
    whole = pooled_step(slice(0, 1))
    for number, found in enumerate(ranks):
        kept = whole["values"] if number == 0 else whole["values"][:0]
        torch.testing.assert_close(found["pooled"]["values"], kept)
        assert torch.equal(found["pooled"]["0.running_mean"], torch.zeros(3).double())
        assert torch.equal(found["pooled"]["0.running_var"], torch.ones(3).double())


def cases(name: str) -> list[tuple[tuple[int, ...], bool, str]]:
    """How images are divided, whether they have labels, and a name."""
    found = [(CUTS, True, name), (ALONE, True, f"{name}, a rank without images")]
    return [*found, (CUTS, False, f"{name}, no labels")] if name in UNLABELLED else found


@pytest.mark.parametrize("name", METHODS)
def test_three_ranks_are_one_process(ranks: list[dict[str, Any]], name: str) -> None:
    for _, labelled, case in cases(name):
        pupil, teacher = pupil_of(METHODS[name])
        whole = some_steps(pupil, pupil, teacher, slice(None), labelled)
        assert len(whole) > 2 * len(METHODS[name])
        for found in ranks:
            assert found[case].keys() == whole.keys()
            for part, value in whole.items():
                gap = (found[case][part] - value).abs().max() if value.numel() else 0.0
                size = float(value.abs().max()) if value.numel() else 0.0
                assert float(gap) <= 1e-9 * size + 1e-13, f"{case}: {part}"


def test_memories_are_filled_from_all_ranks(ranks: list[dict[str, Any]]) -> None:
    found = ranks[0]["cirkd"]
    starts = [value for name, value in found.items() if name.endswith("pixel.start")]
    assert len(starts) == 2 and all(start.any() for start in starts)
    unlabelled = ranks[0]["cirkd, no labels"]
    assert not any(
        value.any() for name, value in unlabelled.items() if name.endswith("pixel.start")
    )
