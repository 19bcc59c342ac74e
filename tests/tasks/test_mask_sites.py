"""The sites of networks with masks, row by row, and what methods do there."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from cells import small_solov2
from detectors import small_two_stage
from instance_room import (
    CLASSES,
    COUNTS,
    FAMILIES,
    batch_of,
    learn,
    lesson_of,
    pair,
    pupil_of,
)
from mask_regions import SIDE
from stillhouse import methods
from stillhouse.distributed import combine
from stillhouse.errors import UserError
from stillhouse.methods.levels import level_places
from stillhouse.models.detectors.two_stage import TwoStage
from stillhouse.models.teacher_wrapper import TeacherWrapper
from stillhouse.objectives import presets
from stillhouse.tasks.region_sites import region_sites
from stillhouse.types import Site

GRIDS = (9, 6)  # of small_solov2
every = pytest.mark.parametrize("family", FAMILIES)
two_stage = pytest.mark.parametrize("family", FAMILIES[1:])


def made(family: str, *counts: int, labels: bool = True) -> Any:
    batch = batch_of(*(counts or COUNTS))
    student, teacher = pair(family)
    return lesson_of(student.eval(), teacher, batch if labels else replace(batch, target=None))


# ------------------------------------------------------------------------------------- class scores


def test_rows_of_class_are_the_cells_of_all_grids_and_images() -> None:
    lesson = made("solov2")
    assert list(lesson.sites) == ["class", "class_main", "class_gated", "mask"]
    student, teacher = lesson.student.out, lesson.teacher.out
    index = lesson.assigned.index
    places = [(n, p) for n in range(len(COUNTS)) for p in range(sum(g * g for g in GRIDS))]
    opened = [bool((index[:, :81] >= 0).any()), bool((index[:, 81:] >= 0).any())]
    for name in ("class", "class_main", "class_gated"):
        site = lesson.sites[name]
        assert len(site.student) == len(places)
        for row, (n, p) in enumerate(places):
            own = int(index[n, p])
            assert torch.equal(site.student[row], student.scores[n, p])
            assert torch.equal(site.teacher[row], teacher.scores[n, p])
            assert int(site.target[row]) == (int(lesson.objects.labels[own]) if own >= 0 else -1)
            counts = {"class": True, "class_main": own >= 0, "class_gated": opened[p >= 81]}[name]
            assert float(site.weight[row]) == counts
        positives = [sum(int(value) >= 0 for value in image) for image in index]
        assert float(site.mass) == sum(max(1, count) for count in positives)


def test_grids_without_an_object_are_closed() -> None:
    student, teacher = pair("solov2")
    batch = batch_of(*COUNTS)
    tiny = batch.target.boxes.clone()
    tiny[:, 2:] = tiny[:, :2] + 4.0  # which belong to the first grid
    small = replace(batch, target=replace(batch.target, boxes=tiny))
    lesson = lesson_of(student.eval(), teacher, small)
    weight = lesson.sites["class_gated"].weight.view(3, -1)
    assert weight[:, :81].all() and not weight[:, 81:].any()


@two_stage
def test_rows_of_roi_are_those_of_detection(family: str) -> None:
    lesson = made(family)
    assert list(lesson.sites) == ["roi", "roi_main", "roi_rest", "mask"]
    plain = region_sites(lesson.student.out, lesson.teacher.out, lesson.objects)
    for name, site in plain.items():
        for part in ("student", "teacher", "target"):
            assert torch.equal(getattr(lesson.sites[name], part), getattr(site, part))


# -------------------------------------------------------------------------------------------- masks


def test_masks_of_cells_by_a_loop() -> None:
    lesson = made("solov2")
    site, index = lesson.sites["mask"], lesson.assigned.index
    objects = lesson.objects
    row = 0
    for n in range(len(COUNTS)):
        for p in range(index.shape[1]):
            if index[n, p] < 0:
                continue
            for side, out in (("student", lesson.student.out), ("teacher", lesson.teacher.out)):
                want = torch.einsum("e,ehw->hw", out.kernels[n, p], out.features[n])
                torch.testing.assert_close(getattr(site, side)[row].view(24, 32), want)
            shares = halved(objects.masks[index[n, p]])
            assert torch.equal(site.target[row].view(24, 32), shares >= 0.5)
            row += 1
    assert row == len(site.student) > 3
    assert not site.teacher.requires_grad and site.student.requires_grad
    assert site.weight is None and site.mass is None


def halved(mask: Tensor) -> Tensor:
    """The mean of the four pixels of each of half as many."""
    return mask.double().view(24, 2, 32, 2).mean((1, 3))


@two_stage
def test_masks_of_regions_by_a_loop(family: str) -> None:
    lesson = made(family)
    site, first = lesson.sites["mask"], lesson.assigned.stages[0]
    teacher: TwoStage = lesson.teacher.out
    positive = [row for row, label in enumerate(first.labels.tolist()) if label < CLASSES]
    assert len(positive) == len(site.student) > 3
    for number, row in enumerate(positive):
        box, image = first.regions.boxes[row : row + 1], first.regions.image[row : row + 1]
        for side, out in (("student", lesson.student.out), ("teacher", teacher)):
            maps = out.scorer.score_masks(out.levels, box, image, 0)
            want = maps[0, int(first.labels[row])].flatten()
            torch.testing.assert_close(getattr(site, side)[number], want)
    assert torch.equal(site.target, first.masks.targets.flatten(1))
    assert not site.teacher.requires_grad and site.student.requires_grad


def test_masks_of_teacher_and_student_have_one_size() -> None:
    student, _ = pair("mask_rcnn")
    torch.manual_seed(0)
    other = {"width": 8, "depth": 1, "side": 7}
    teacher = small_two_stage("mask_rcnn", mask_head=other).double().eval()
    lesson = lesson_of(student.eval(), teacher, batch_of(1))
    assert len(lesson.sites["roi"].student)
    size = rf"{SIDE} x {SIDE} pixels in the student and 14 x 14 in the teacher"
    with pytest.raises(UserError, match=size):
        lesson.sites["mask"]


@every
def test_without_labels_there_are_no_masks(family: str) -> None:
    lesson = made(family, labels=False)
    site = lesson.sites["mask"]
    assert len(site.student) == len(site.teacher) == len(site.target) == 0
    pixels = 24 * 32 if family == "solov2" else SIDE * SIDE
    assert site.student.shape[1] == pixels and site.student.requires_grad
    if family == "solov2":
        every_cell, main = lesson.sites["class"], lesson.sites["class_main"]
        assert every_cell.weight.all() and not main.weight.any()
        assert (every_cell.target == -1).all() and float(every_cell.mass) == len(COUNTS)


def test_a_cell_and_a_region_have_features_in_common_only() -> None:
    student, teacher = pair("solov2", "mask_rcnn")
    lesson = lesson_of(student.eval(), teacher, batch_of(1, 1))
    assert list(lesson.sites) == []
    with pytest.raises(UserError, match="these two networks have no sites"):
        lesson.sites["class"]


# ------------------------------------------------------------------------------------------ methods


def cross_entropy(site: Site, tau: float) -> float:
    total = 0.0
    for s, t in zip(site.student.detach(), site.teacher, strict=True):
        for a, b in zip((s / tau).tolist(), (t / tau).tolist(), strict=True):
            p, q = 1 / (1 + math.exp(-a)), 1 / (1 + math.exp(-b))
            total -= q * math.log(p) + (1 - q) * math.log(1 - p)
    return tau**2 * total


@every
def test_losses_of_masks_are_means_over_masks(family: str) -> None:
    """Binary cross-entropy and the overlap, by a loop."""
    batch = batch_of(1, 0, 1)
    student, teacher = pair(family)
    both = (presets.tld(2.0, sites=("mask",)), presets.dice(sites=("mask",)))
    pupil, frozen = pupil_of(student.eval(), teacher, *both)
    terms = learn(pupil, frozen, batch)
    site = lesson_of(student, teacher, batch).sites["mask"]
    overlaps = []
    for s, t in zip(site.student.detach().sigmoid(), site.teacher.sigmoid(), strict=True):
        product = sum(a * b for a, b in zip(s.tolist(), t.tolist(), strict=True))
        squares = sum(a * a + b * b for a, b in zip(s.tolist(), t.tolist(), strict=True))
        overlaps.append(1 - 2 * product / squares)
    count = len(site.student)
    tld, dice = terms["tld/mask/tld"], terms["dice/mask/dice"]
    assert float(tld.mean().detach()) == pytest.approx(cross_entropy(site, 2.0) / count, rel=1e-9)
    assert float(dice.mean().detach()) == pytest.approx(sum(overlaps) / count, rel=1e-9)
    combine({"tld": tld, "dice": dice}).backward()
    own = student.head.kernel if family == "solov2" else student.mask_heads[0].maps
    assert own.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in teacher.parameters())


LOGITS = {
    "kd": presets.kd(temperature=2.0, sites=("class",)),
    "bce": presets.tld(1.0),
    "tld main": presets.tld(sites=("class_main",)),
    "bcd": presets.bcd(sites=("class_gated",)),
    "dist": presets.dist(),
    "tld_dist": presets.tld_dist(),
    "dkd": presets.dkd(),
    "mse": presets.mse(sites=("class", "mask")),
    "mld": presets.mld(sites=("mask",)),
    "cwd of masks": presets.kd(temperature=4.0, sites=("mask",)),
}
FEATURES = {
    "pkd": presets.pkd(pairs="levels"),
    "cwd": presets.cwd(pairs="levels", adapter="pointwise"),
    "mimic": presets.mimic(pairs="levels"),
    "mgd": methods.mgd(pairs="levels"),
    "fitnet": methods.fitnet(pairs="levels", adapter="pointwise"),
    "fgd": methods.fgd(),
    "fkd": methods.fkd(),
    "defeat": methods.defeat(finest=6.0),
    "mgd and tld": (methods.mgd(pairs="levels"), presets.tld()),
}


@pytest.mark.parametrize("name", [*LOGITS, *FEATURES])
def test_methods_take_a_step_on_cells(name: str) -> None:
    method = {**LOGITS, **FEATURES}[name]
    student, teacher = pair("solov2")
    pupil, frozen = pupil_of(
        student.eval(), teacher, *(method if isinstance(method, tuple) else (method,))
    )
    optimiser = torch.optim.SGD(pupil.parameters(), lr=1e-3)
    values = []
    for _ in range(2):
        terms = learn(pupil, frozen, batch_of(*COUNTS))
        distilled = {n: t for n, t in terms.items() if n not in ("class", "mask")}
        assert distilled and all(t.total.isfinite() for t in distilled.values())
        optimiser.zero_grad()
        combine(terms).backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in pupil.parameters())
        optimiser.step()
        values.append(float(combine(distilled).detach()))
    assert values[0] != values[1]


@pytest.mark.parametrize("family", ["mask_rcnn"])
@pytest.mark.parametrize("name", ["fgd", "fkd", "fgfi", "gid"])
def test_methods_of_detectors_take_a_step_on_regions(family: str, name: str) -> None:
    student, teacher = pair(family)
    method = {
        "fgd": methods.fgd(),
        "fkd": methods.fkd(),
        "fgfi": methods.fgfi(),
        "gid": methods.gid(),
    }[name]
    terms = learn(*pupil_of(student.eval(), teacher, method), batch_of(*COUNTS))
    combine(terms).backward()
    assert all(t.total.isfinite() for t in terms.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in student.parameters())


def test_small_solov2_has_these_grids() -> None:
    assert small_solov2().head.grids == GRIDS


def test_the_classes_of_a_teacher_are_chosen_by_name() -> None:
    student, teacher = pair("solov2")
    standard = ((0.0,) * 3, (1.0,) * 3)
    order = [4, 0, 1, 2, 3]
    chosen = TeacherWrapper(teacher, data=standard, select=order).double()
    batch = batch_of(*COUNTS)
    site = lesson_of(student.eval(), chosen, batch).sites["class"]
    plain = lesson_of(student, teacher, batch).sites["class"]
    torch.testing.assert_close(site.teacher, plain.teacher[:, order])
    resized = TeacherWrapper(teacher, data=standard, size=(24, 32)).double()
    with pytest.raises(UserError, match="images cannot be resized to"):
        resized(batch.images)


def test_levels_have_the_strides_of_their_maps() -> None:
    maps = [torch.zeros(1, 3, 48 // stride, 64 // stride) for stride in (2, 8)]
    out = small_solov2()(torch.zeros(1, 3, 48, 64))
    assert level_places(maps, ("p1", "p3"), out) == [(0, 2), (1, 8)]
