"""MasKD: masks in plain loops, and the two phases of tokens and student."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detectors import SIZE, small_detector, small_two_stage, some_batch
from level_room import EXAMPLE, FIRST, LAST, LevelRoom, values
from stillhouse.distiller import Distiller
from stillhouse.distributed import combine
from stillhouse.errors import UserError
from stillhouse.functional.masks import mask_similarity, masked_difference
from stillhouse.methods.maskd import MasKD
from stillhouse.methods.setting import Setting
from stillhouse.models import zoo
from stillhouse.models.taps import Tapped
from stillhouse.models.teacher_wrapper import TeacherWrapper
from stillhouse.tasks.detection import Detection
from stillhouse.types import Clock, Lesson

STANDARD = ((0.0,) * 3, (1.0,) * 3)


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def test_the_similarity_of_masks_pair_by_pair() -> None:
    masks = torch.rand(2, 4, 7, dtype=torch.double)
    found = mask_similarity(masks)
    for n, image in enumerate(masks.tolist()):
        total = 0.0
        for i in range(4):
            for j in range(4):
                if i != j:
                    a, b = image[i], image[j]
                    total += (
                        2 * sum(x * y for x, y in zip(a, b, strict=True))
                        / (sum(x * x for x in a) + sum(y * y for y in b))
                    )  # fmt: skip
        assert float(found[n]) == pytest.approx(total / 12, rel=1e-12)
    equal = masks[:, :1].expand(2, 3, 7)
    assert mask_similarity(equal).tolist() == pytest.approx([1, 1])
    apart = torch.eye(3)[None]
    assert mask_similarity(apart).tolist() == [0] and mask_similarity(masks[:, :1]).tolist() == [
        0,
        0,
    ]
    assert mask_similarity(torch.zeros(1, 3, 4)).tolist() == [0]


@torch.no_grad()
@pytest.mark.parametrize("variant", ["paper", "reference"])
@pytest.mark.parametrize("customise", [0.0, 2.0])
def test_values_are_those_of_the_formula(variant: Any, customise: float) -> None:
    spec = MasKD(weight=3.0, tokens=4, customise=customise, variant=variant)
    room = LevelRoom(spec).randomise()
    lesson, total = room.lesson(), 0.0
    for i, tap in enumerate(room.method.student_taps):
        tokens = room.method.tokens[i]
        learnt = tokens.tokens.tolist()
        shares = tokens.importance(lesson.teacher.taps[tap]).softmax(1).tolist()
        pair = [trace.taps[tap].flatten(2).tolist() for trace in (lesson.student, lesson.teacher)]
        for n, (s, t) in enumerate(zip(*pair, strict=True)):
            places, channels = range(len(s[0])), range(len(s))
            for k, token in enumerate(learnt):
                masks = []
                for p in places:
                    mask = sigmoid(sum(token[c] * t[c][p] for c in channels))
                    if not customise:
                        mask *= sigmoid(sum(token[c] * s[c][p] for c in channels))
                    masks.append(mask)
                loss = sum(
                    m ** (2 if variant == "reference" else 1)
                    * sum((s[c][p] - t[c][p]) ** 2 for c in channels)
                    / len(channels)
                    for p, m in zip(places, masks, strict=True)
                )
                total += shares[n][k] * loss / sum(masks)
    term = room.terms(lesson)["masked"]
    assert term.weight == 3.0 and total > 1
    assert float(term.mean()) == pytest.approx(total / 3, rel=1e-9)


@pytest.mark.parametrize("family", ["gfocal", "atss", "reppoints"])
def test_the_label_loss_is_that_of_the_detector_with_masked_maps(family: str) -> None:
    """With the maps of the teacher itself, by running the parts of the teacher."""
    room = LevelRoom(MasKD(tokens=3), family).randomise()
    batch = some_batch(2, 0, 3)
    lesson = room.lesson(batch, FIRST)
    with torch.no_grad():
        levels = room.teacher.neck(room.teacher.backbone(batch.images))
    taps = dict(zip(room.method.teacher_taps, levels, strict=True))
    lesson = replace(lesson, teacher=replace(lesson.teacher, taps=taps))
    terms = room.terms(lesson)
    masked, alike = [], []
    for tokens, each in zip(room.method.tokens, levels, strict=True):
        masks = torch.einsum("tc,nchw->nthw", tokens.tokens, each).sigmoid()
        share = tokens.importance(each).softmax(1)
        masked.append(
            sum(share[:, k, None, None, None] * masks[:, k, None] * each for k in range(3))
        )
        alike.append(mask_similarity(masks.flatten(2)))
    raw = room.teacher.head(masked)
    out = replace(
        lesson.teacher.out,
        scores=raw.scores, boxes=raw.boxes, quality=raw.quality, initial=raw.initial,
    )  # fmt: skip
    want = combine(out.family.terms(out, out.family.assign(out, batch.target)))
    assert terms["tokens"].weight == terms["diversity"].weight == 1
    torch.testing.assert_close(terms["tokens"].mean(), want)
    torch.testing.assert_close(terms["diversity"].mean(), torch.stack(alike).sum(0).mean())
    slopes = torch.autograd.grad(want, list(room.method.tokens.parameters()))
    terms["tokens"].mean().backward()
    for p, slope in zip(room.method.tokens.parameters(), slopes, strict=True):
        torch.testing.assert_close(p.grad, slope)
    assert all(p.grad is None for p in room.teacher.head.parameters())


@pytest.mark.parametrize("name", ["faster_rcnn", "cascade_rcnn"])
def test_the_label_loss_of_two_stages(name: str) -> None:
    """It is that of proposals and of all stages, from the masked maps."""
    torch.manual_seed(0)
    student, teacher = (small_two_stage(name).double().eval() for _ in range(2))
    batch, task = some_batch(2, 0, 3), Detection(5)
    method = MasKD(tokens=2, init=1.0).build(Setting(student, teacher, EXAMPLE)).double()
    with torch.no_grad():
        ours = Tapped(student, method.student_taps, (EXAMPLE,))(batch.images)
        theirs = Tapped(teacher, method.teacher_taps, (EXAMPLE,))(batch.images)
    lesson = task.lesson(ours, theirs, batch, FIRST, task.assign(ours, batch))
    torch.manual_seed(1)
    terms = method(lesson)
    masked = [
        tokens(theirs.taps[tap])[0]
        for tokens, tap in zip(method.tokens, method.teacher_taps, strict=True)
    ]
    with monkeypatched_levels(teacher, masked):
        torch.manual_seed(1)
        out = teacher.train()(batch.images)
        assigned = out.assign(batch.target)
    assert len(out.levels) < len(masked) and {"proposal", "proposal_box"} < set(out.terms(assigned))
    want = combine(out.terms(assigned))
    torch.testing.assert_close(terms["tokens"].mean(), want)
    slopes = torch.autograd.grad(want, [tokens.tokens for tokens in method.tokens])
    terms["tokens"].mean().backward()
    for tokens, slope in zip(method.tokens, slopes, strict=True):
        torch.testing.assert_close(tokens.tokens.grad, slope)
    assert all(p.grad is None for p in teacher.parameters())


@contextmanager
def monkeypatched_levels(network: Any, levels: list[Tensor]) -> Iterator[None]:
    """A detector whose neck gives these maps."""
    network.make_levels = lambda images: levels
    yield
    del network.make_levels


@pytest.mark.parametrize("make", [small_detector, small_two_stage])
def test_labels_are_those_of_the_teachers_classes(make: Any) -> None:
    """A teacher of the same classes in another order, and one more."""
    order = [3, 5, 0, 1, 4]
    name = "gfocal" if make is small_detector else "faster_rcnn"
    torch.manual_seed(0)
    student, other = make(name).double().eval(), make(name, 6).double().eval()
    teacher = TeacherWrapper(other, data=STANDARD, select=order).double()
    batch = some_batch(2, 3)
    assert batch.target is not None
    renamed = replace(batch.target, labels=torch.tensor(order)[batch.target.labels])
    found = []
    for network, target in ((teacher, batch.target), (other, renamed)):
        torch.manual_seed(2)
        method = MasKD(tokens=2, init=1.0).build(Setting(student, network, EXAMPLE)).double()
        with torch.no_grad():
            ours = Tapped(student, method.student_taps, (EXAMPLE,))(batch.images)
            theirs = Tapped(network, method.teacher_taps, (EXAMPLE,))(batch.images)
        torch.manual_seed(3)
        lesson = Lesson(ours, theirs, {}, FIRST, objects=target)
        found.append(method(lesson)["tokens"].mean().detach())
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


def test_in_each_phase_one_side_learns() -> None:
    room = LevelRoom(MasKD(init=1.0)).randomise()
    for clock, first in ((Clock(49, 100, 50), True), (Clock(50, 100, 50), False)):
        room.method.zero_grad()
        lesson = room.lesson(clock=clock)
        terms = room.terms(lesson)
        assert [bool(term.weight) for term in terms.values()] == [first, first, not first]
        assert [float(t.total.detach()) > 0 for t in terms.values()] == [first, first, not first]
        combine(terms).backward()
        assert all((p.grad is not None) == first for p in room.method.tokens.parameters())
        assert all((tap.grad is None) == first for tap in lesson.student.taps.values())


def test_masks_of_the_student_join_later() -> None:
    """They have no gradient."""
    lesson = LevelRoom(MasKD()).lesson()
    before, after = (
        LevelRoom(MasKD(init=0.0, customise=0.5)).randomise() for _ in range(2)
    )  # fmt: skip
    early = values(before.terms(replace(lesson, clock=Clock(49, 100, 50))))
    late = values(after.terms(replace(lesson, clock=Clock(50, 100, 50))))
    assert early["masked"] != pytest.approx(late["masked"])
    assert early["masked"] == values(before.terms(replace(lesson, clock=FIRST)))["masked"]


def test_a_mask_has_the_same_value_whatever_its_size() -> None:
    """Where differences are equal everywhere."""
    student, teacher = torch.zeros(2, 3, 5), torch.ones(2, 3, 5)
    share = torch.tensor([[0.25, 0.75]]).expand(2, 2)
    for masks in (torch.rand(2, 2, 5) + 0.1, torch.full((2, 2, 5), 1e-20)):
        found = masked_difference(student, teacher, masks, share)
        if float(masks.max()) > 1e-3:
            assert found.tolist() == pytest.approx([1, 1])
        assert found.isfinite().all()


def test_the_head_is_not_part_of_the_method() -> None:
    room = LevelRoom(MasKD())
    assert all(name.startswith("tokens.") for name in room.method.state_dict())
    hidden = [*room.method.modules()]
    assert not any(module is room.teacher.head for module in hidden)
    assert not any("loss" in name for name, _ in room.method.named_parameters())


def test_tokens_learn_in_a_loop_of_one_s_own() -> None:
    torch.manual_seed(0)
    student, teacher = small_detector("fcos"), small_detector("fcos", backbone="stillhouse/medium")
    example = torch.zeros(2, 3, *SIZE)
    spec = MasKD(init=1.0)
    made = Distiller(student, teacher, spec, task="detection", example=example, steps=20,
                     steps_per_epoch=10)  # fmt: skip
    batch = some_batch(2, 1)
    batch = replace(batch, images=batch.images.float(), target=replace(
        batch.target, boxes=batch.target.boxes.float()))  # fmt: skip
    optimiser = torch.optim.SGD(made.parameters(), 0.05)
    found = []
    for _ in range(12):
        loss, terms = made(batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        found.append({name: float(terms[name]) for name in ("tokens", "diversity", "masked")})
    assert found[9]["tokens"] + found[9]["diversity"] < found[0]["tokens"] + found[0]["diversity"]
    assert all(one["masked"] == 0 for one in found[:10]) and found[10]["masked"] > 0
    assert found[10]["tokens"] == found[10]["diversity"] == 0


# ----------------------------------------------------------------------------------------- refusals


def test_all_levels_of_the_teacher_are_needed() -> None:
    setting = Setting(small_detector("fcos"), small_detector("fcos"), EXAMPLE.float())
    with pytest.raises(UserError) as caught:
        MasKD(pairs=(("p2", "p2"), ("p3", "p3"))).build(setting)
    text = str(caught.value)
    assert "which reads the levels p2, p3, p4, but the pairs have p2, p3; set method.pairs" in text
    paths = (("p2", "neck.p2"), ("p3", "neck.p3"), ("p4", "neck.p4"))
    assert MasKD(pairs=paths).build(setting).teacher_taps == ("neck.p2", "neck.p3", "neck.p4")


def test_a_teacher_without_a_head_of_its_own() -> None:
    network: nn.Module = zoo.create("stillhouse/small", 5)
    setting = Setting(small_detector("fcos"), network, EXAMPLE.float())
    with pytest.raises(
        UserError, match="but SmallResNet has no head that can be run alone; take a t"
    ):
        MasKD().build(setting)


def test_without_a_first_phase_the_student_learns_at_once() -> None:
    room = LevelRoom(MasKD(init=0.0))
    assert room.terms(room.lesson(clock=FIRST))["masked"].weight == 10
    assert room.terms(room.lesson(clock=LAST))["tokens"].weight == 0
