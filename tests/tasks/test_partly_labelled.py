"""Batches in which some images have no labels: what counts in label terms, and what in others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from detectors import FAMILIES, small_detector, small_two_stage, some_batch
from instance_room import batch_of, network
from segment_room import CLASSES, EXAMPLE, masks, segmenters
from stillhouse.batches import Batch, Objects
from stillhouse.data.targets import collate, target_at
from stillhouse.distiller import Distiller
from stillhouse.distributed import combine
from stillhouse.errors import UserError
from stillhouse.functional.resize import resize_maps
from stillhouse.objectives import presets
from stillhouse.tasks.detection import Detection
from stillhouse.tasks.instance import Instance
from stillhouse.tasks.semantic import Semantic
from stillhouse.types import Clock, Trace

COUNTS = (3, 2, 0, 4)
UNKNOWN, KNOWN = [0, 3], [1, 2]  # the labelled ones have two objects and none
CLOCK = Clock(0, 1, 1)


def partly(batch: Batch[Any]) -> Batch[Any]:
    """The batch as a loader gives it where some images have no labels."""
    targets = [None if i in UNKNOWN else target_at(batch.target, i) for i in range(len(batch))]
    return replace(batch, target=collate(targets))


def labelled(batch: Batch[Any]) -> Batch[Any]:
    return batch.rows(torch.tensor(KNOWN))


NETWORKS = {
    **{family: (Detection(5), small_detector, some_batch) for family in FAMILIES},
    "faster_rcnn": (Detection(5), small_two_stage, some_batch),
    "solov2": (Instance(5), network, batch_of),
    "mask_rcnn": (Instance(5), network, batch_of),
}


@pytest.mark.parametrize("family", NETWORKS)
def test_label_terms_of_objects_are_those_of_the_labelled_images(family: str) -> None:
    task, make, batch_with = NETWORKS[family]
    torch.manual_seed(0)
    student = make(family).double().eval()
    whole = batch_with(*COUNTS)
    batch, part = partly(whole), labelled(whole)
    images = batch.images.clone().requires_grad_()
    out = Trace(student(images))
    found = task.supervise(out, batch, task.assign(out, batch))
    alone = Trace(student(part.images))
    want = task.supervise(alone, part, task.assign(alone, part))
    assert found.keys() == want.keys() and len(found) > 1
    for name, term in want.items():
        assert float(term.mass) == float(found[name].mass) > 0
        torch.testing.assert_close(found[name].total, term.total, rtol=1e-9, atol=1e-12)
    (slope,) = torch.autograd.grad(combine(found), images)
    assert not slope[UNKNOWN].any() and all(slope[i].any() for i in KNOWN)


@pytest.mark.parametrize("family", ["gfocal", "faster_rcnn", "solov2", "mask_rcnn"])
def test_terms_and_gradients_without_any_label(family: str) -> None:
    task, make, batch_with = NETWORKS[family]
    torch.manual_seed(0)
    student, batch = make(family).double().eval(), batch_with(*COUNTS)
    out = Trace(student(batch.images))
    names = task.supervise(out, batch, task.assign(out, batch)).keys()
    everyone = replace(batch.target, unlabelled=torch.ones(4, dtype=torch.bool))
    for target in (None, everyone):
        terms = task.supervise(out, replace(batch, target=target))
        assert terms.keys() == names
        assert all(float(t.total.detach()) == float(t.mass) == 0 for t in terms.values())
        student.zero_grad()
        combine(terms).backward(retain_graph=True)
        assert not any(p.grad.any() for p in student.parameters() if p.grad is not None)


def test_a_teacher_of_detectors_teaches_all_images() -> None:
    torch.manual_seed(0)
    student, teacher = (small_detector("gfocal").double().eval() for _ in range(2))
    batch = partly(some_batch(*COUNTS))
    task, out, others = Detection(5), Trace(student(batch.images)), Trace(teacher(batch.images))
    assigned = task.assign(out, batch)
    lesson = task.lesson(out, others, batch, CLOCK, assigned)
    term = (
        presets.tld(weight=1.0).objectives()["tld"].at(lesson.sites["class"])(lesson.sites["class"])
    )
    rows = len(lesson.sites["class"].student)
    assert rows == 4 * out.out.scores.shape[1] and bool(lesson.sites["class"].weight.all())
    positives = [int(n) for n in assigned.positives]
    assert [positives[i] for i in UNKNOWN] == [0, 0] and positives[1] > 0
    assert float(lesson.sites["class"].mass) == sum(max(n, 1) for n in positives)
    assert float(term.mass) == sum(max(n, 1) for n in positives)


def test_scores_of_objects_are_those_of_the_labelled_images() -> None:
    for task, student, batch in (
        (Detection(5), small_detector("fcos").double().eval(), some_batch(*COUNTS)),
        (Instance(5), network("solov2").eval(), batch_of(*COUNTS)),
    ):
        found, want = task.meter(), task.meter()
        with torch.no_grad():
            found.update(Trace(student(batch.images)), partly(batch))
            part = labelled(batch)
            want.update(Trace(student(part.images)), part)
        one, other = found.summary(), want.summary()
        assert one["objects"] == 2
        assert dict(one) == pytest.approx(dict(other), nan_ok=True)


# ----------------------------------------------------------------------------------------- pixels


def pixels(dtype: torch.dtype = torch.uint8) -> Batch[Tensor]:
    images = torch.randn(4, *EXAMPLE.shape[1:], dtype=torch.double)
    keys = torch.arange(4)
    return Batch(images, masks(4).to(dtype), keys, torch.zeros_like(keys))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_pixels_of_images_without_labels(dtype: torch.dtype) -> None:
    """By loops: label terms over the pixels with a class, others over all of unlabelled images."""
    student, teacher = segmenters()
    whole = pixels(dtype)
    batch, task = partly(whole), Semantic(CLASSES)
    out = Trace(student(batch.images))
    term = task.supervise(out, batch)["label"]
    scores = resize_maps(out.out.logits, (16, 24)).detach()
    total, count = 0.0, 0
    for image in KNOWN:
        for y, line in enumerate(whole.target[image].tolist()):
            for x, value in enumerate(line):
                if value != 255:
                    total -= float(scores[image, :, y, x].log_softmax(0)[value])
                    count += 1
    assert float(term.mass) == count
    assert float(term.total.detach()) == pytest.approx(total, rel=1e-9)
    slope = torch.autograd.grad(term.mean(), out.out.logits, retain_graph=True)[0]
    assert not slope[UNKNOWN].any() and slope[KNOWN].any()

    lesson = task.lesson(out, Trace(teacher(batch.images)), batch, CLOCK)
    site = lesson.sites["pixel"]
    weight = site.weight.view(4, -1)
    assert bool((weight[UNKNOWN] == 1).all())
    small = whole.target[:, 2::4, 2::4]  # blocks of 4 x 4 pixels
    assert torch.equal(weight[KNOWN] > 0, (small[KNOWN] != 255).flatten(1))
    assert float(site.mass) == float(weight.sum())
    assert (site.target.view(4, -1)[UNKNOWN] == -1).all()
    (slope,) = torch.autograd.grad(presets.kd().objectives()["kd"](site).mean(), out.out.logits)
    assert all(slope[i].any() for i in range(4))


def test_scores_of_pixels_are_those_of_the_labelled_images() -> None:
    student, _ = segmenters()
    task, batch = Semantic(CLASSES, boundary=True), pixels()
    found, want = task.meter(), task.meter()
    with torch.no_grad():
        found.update(Trace(student(batch.images)), partly(batch))
        part = labelled(batch)
        want.update(Trace(student(part.images)), part)
    assert dict(found.summary()) == pytest.approx(dict(want.summary()))
    assert not task.collect_target(partly(batch))[UNKNOWN].any()
    assert torch.equal(task.collect_target(partly(batch))[KNOWN], task.collect_target(part))


# -------------------------------------------------------------------------------------- distiller


def test_a_distiller_without_labels() -> None:
    torch.manual_seed(0)
    student, teacher = (small_detector("fcos").double() for _ in range(2))
    made = Distiller(student, teacher, "tld", "detection")
    batch = some_batch(*COUNTS)
    loss, terms = made((batch.images, None))
    assert all(float(v) == 0 for name, v in terms.items() if name != "class/tld")
    torch.testing.assert_close(loss.detach(), terms["class/tld"])
    loss.backward()
    assert any(p.grad.any() for p in student.parameters())
    student, teacher = segmenters()
    loss, terms = Distiller(student, teacher, presets.kd(sites=("pixel",)), "semantic")(
        (pixels().images, None)
    )
    assert float(terms["label"]) == 0 < float(terms["pixel/kd"])


@pytest.mark.parametrize("name", ["fgd", "fgfi", "defeat", "rm"])
def test_a_distiller_names_the_method_that_needs_objects(name: str) -> None:
    torch.manual_seed(0)
    student, teacher = (small_detector("gfocal").double() for _ in range(2))
    batch = some_batch(*COUNTS)
    made = Distiller(student, teacher, name, "detection", example=batch.images).double()
    for one in (partly(batch), replace(batch, target=None)):
        with pytest.raises(UserError, match=f"method {name} needs the labels of every image"):
            made(one)
    assert isinstance(batch.target, Objects)
    assert torch.isfinite(made(batch)[0])
