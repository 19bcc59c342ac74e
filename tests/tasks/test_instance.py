"""The task of instance segmentation: what it reads, refuses, trains on, and finds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from cells import SIZE, small_solov2, some_images
from detectors import small_detector, small_two_stage
from instance_room import (
    CLASSES,
    COUNTS,
    FAMILIES,
    TASK,
    Pictures,
    batch_of,
    learn,
    network,
    pair,
    pupil_of,
)
from mask_regions import far
from stillhouse.batches import Batch, Objects
from stillhouse.distributed import combine
from stillhouse.errors import UserError
from stillhouse.objectives import presets
from stillhouse.tasks.base import Facts
from stillhouse.tasks.instance import Instance, InstanceSpec
from stillhouse.types import Trace

every = pytest.mark.parametrize("family", FAMILIES)


# --------------------------------------------------------------------------------- what it is given


def test_batches_of_torchvision_have_the_same_loss() -> None:
    batch = batch_of(*COUNTS)
    pictures = Pictures(batch)
    found = TASK.read(([pictures[i][0] for i in range(3)], [pictures[i][1] for i in range(3)]))
    assert found.target.images == 3 and torch.equal(found.target.masks, batch.target.masks)
    out = Trace(network("solov2").float()(found.images))
    plain = replace(batch, images=found.images)
    terms = [TASK.supervise(out, one, TASK.assign(out, one)) for one in (found, plain)]
    assert [float(t.total.detach()) for t in terms[0].values()] == [
        pytest.approx(float(t.total.detach()), rel=1e-6) for t in terms[1].values()
    ]


def test_objects_without_masks_or_with_others_are_refused() -> None:
    batch = batch_of(2, 1)
    boxes = {"boxes": batch.target.boxes[:1], "labels": batch.target.labels[:1]}
    whole = {**boxes, "masks": batch.target.masks[:1]}
    for target in ([boxes, boxes], [whole, boxes]):
        with pytest.raises(UserError, match="the objects of the batch have none; pass `masks`"):
            TASK.read((batch.images, target))
    small = {**boxes, "masks": batch.target.masks[:1, ::2, ::2]}
    with pytest.raises(UserError, match="have 24 x 32 pixels, but the images 48 x 64; give both"):
        TASK.read((batch.images[:1], [small]))
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0)}
    assert TASK.read((batch.images[:1], [nothing])).target.masks is None


def test_data_without_objects_are_refused() -> None:
    facts = Facts("digits/numbers", ("a", "b"), torch.tensor([0, 1]))
    with pytest.raises(UserError, match="but digits/numbers has none; choose a data set of inst"):
        InstanceSpec().build(facts)
    made = InstanceSpec(threshold=0.2, most=7, boundary=True).build(replace(facts, validation=None))
    assert made == Instance(2, 0.2, None, 7, True)
    assert (made.options_of(small_solov2()(some_images(1).float()))).most == 7


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"threshold": 1.5}, r"`threshold` must be in \[0, 1\]"),
        ({"iou": -0.1}, r"`iou` must be in \[0, 1\]"),
        ({"most": 0}, "`most` must be at least 1"),
    ],
)
def test_wrong_options(options: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        InstanceSpec(**options)


def test_detectors_without_masks_are_refused() -> None:
    images = torch.zeros(1, 3, *SIZE)
    for made, text in (
        (small_detector("fcos"), "gives an output of type Dense, which has no masks of objects"),
        (small_two_stage("faster_rcnn"), "is a detector without masks"),
        (
            nn.Identity(),
            "gives an output of type Tensor, which has no masks of objects; take detector/solov2",
        ),
    ):
        with pytest.raises(UserError, match=f"the student {text}") as caught:
            TASK.check_output(made.eval()(images), "the student", 1)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="scores of 4 classes for 1 images; expected 5 classes"):
        TASK.check_output(small_solov2(4)(images), "the student", 1)


def test_networks_that_cannot_be_compared_are_refused() -> None:
    images = some_images(2)
    out = network("solov2").eval()(images)
    coarse = {"strides": (4, 8), "neck": {"width": 16, "extra": 1}, "levels": ("p3", "p4")}
    for options, text in (
        ({"grids": (9, 5)}, "grid 1: 6 x 6 cells and 5 x 5"),
        (coarse, "masks of 24 x 32 and 12 x 16"),
    ):
        other = network("solov2", **options).eval()(images)
        with pytest.raises(UserError, match=text):
            TASK.check_pair(out, other)
    TASK.check_pair(out, network("mask_rcnn").eval()(images))  # by their features


# ------------------------------------------------------------------------------- what it trains on


@every
@pytest.mark.parametrize("counts", [COUNTS, (0, 0), (1,), ()], ids=str)
def test_every_parameter_has_a_finite_gradient(family: str, counts: tuple[int, ...]) -> None:
    batch = batch_of(*counts) if counts else batch_of(1).rows(slice(0, 0))
    for labelled in (True, False):
        student, teacher = pair(family)
        pupil, frozen = pupil_of(student.eval(), teacher, presets.tld(sites=("mask",)))
        terms = learn(pupil, frozen, batch if labelled else replace(batch, target=None))
        assert all(t.total.isfinite() and t.mass.isfinite() for t in terms.values())
        first = "class_1" if family.startswith("cascade") else "class"
        assert {first, "mask/tld"} <= set(terms)
        combine(terms).backward()
        for name, parameter in student.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        if not labelled:
            assert float(terms[first].total.detach()) == float(terms[first].mass) == 0
            assert not any(p.grad.any() for p in student.parameters())


@every
def test_crowds_are_not_trained_on(family: str) -> None:
    batch = batch_of(1, 1)
    student = network(family).eval()
    out = Trace(student(batch.images))
    crowd = replace(batch.target, crowd=torch.tensor([True, False]))
    assigned = TASK.assign(out, replace(batch, target=crowd))
    site = TASK.make_sites(out.out, out.out, assigned, crowd)["mask"]
    small = replace(batch, target=batch.target.objects(torch.tensor([False, True])))
    torch.manual_seed(3)
    other = TASK.make_sites(out.out, out.out, TASK.assign(out, small), small.target)["mask"]
    assert 0 < len(site.student) == len(other.student)
    assert torch.equal(site.target.sum(0), other.target.sum(0))


# ------------------------------------------------------------------------------------ what it finds


@torch.no_grad()
def sure(made: Any) -> Any:
    """A SOLO network that finds something."""
    made.head.score.bias += 5
    made.head.kernel.weight *= 20
    return made


@every
def test_instances_are_those_of_the_network_without_padding(family: str) -> None:
    made = far(family) if family != "solov2" else sure(network(family)).eval()
    task = replace(TASK, threshold=0.01, most=4)
    batch = replace(batch_of(1, 1), sizes=torch.tensor([[48, 64], [40, 50]]))
    trace = Trace(made(batch.images))
    found = list(task.segment(trace, batch))
    assert len(found) == 2 and all(0 < len(one.scores) <= 4 for one in found)
    for index, (one, size) in enumerate(zip(found, ((48, 64), (40, 50)), strict=True)):
        plain = trace.out.segment(index, size, task.options_of(trace.out))
        assert torch.equal(one.masks, plain.masks) and one.masks.shape[1:] == SIZE
        assert not one.masks[:, size[0] :].any() and not one.masks[:, :, size[1] :].any()
        assert (one.scores.diff() <= 0).all()


def test_scores_are_of_masks() -> None:
    """Of a network that finds the objects themselves."""

    class Known:
        family = None

        def __init__(self, objects: Objects) -> None:
            self.objects = objects

        def segment(self, index: int, size: Any, options: Any) -> Objects:
            own = self.objects.rows(torch.tensor([index]))
            return replace(own, scores=torch.linspace(1, 0.5, len(own.labels)))

    batch = batch_of(2, 0, 3)

    class Seeing(Instance):
        def options_of(self, out: Any) -> Any:
            return None

    meter = Seeing(CLASSES, boundary=True).meter()
    meter.update(Trace(Known(batch.target)), batch)
    summary = meter.summary()
    assert (summary["ap"], summary["box_ap"], summary["boundary_ap"]) == pytest.approx(
        (100, 100, 100)
    )
    assert summary["objects"] == 5
    assert TASK.passes(summary, 3) and not TASK.passes({**summary, "ap50": 0.5}, 3)


def test_what_diagnoses_read() -> None:
    batch = batch_of(*COUNTS)
    trace = Trace(network("solov2").eval()(batch.images))
    highest = trace.out.scores.amax(1)
    assert torch.equal(TASK.collect(trace), highest)
    chosen = TASK.select(trace.out, torch.tensor([0, 4, 2]))
    assert torch.equal(chosen, highest[[0, 1, 2], [0, 4, 2]])
    hot = TASK.collect_target(batch)
    for index in range(3):
        labels = batch.target.labels[batch.target.image == index].tolist()
        assert hot[index].nonzero().flatten().tolist() == sorted(set(labels))
    with pytest.raises(UserError, match="are not cached"):
        TASK.storable(trace.out)


def test_a_batch_of_its_own_kind_is_read_as_it_is() -> None:
    batch = batch_of(1)
    assert TASK.read(batch) is batch
    plain = Batch(batch.images, None, batch.keys, batch.views)
    assert TASK.read(plain).target is None
